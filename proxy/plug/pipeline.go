package plug

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token"
)

// Pipeline is a compiled stack of plugs; the zero value lets everything
// through.
type Pipeline []Compiled

// CompilePipeline compiles the plugs of env.Pipeline. It reports the errors
// of all of them, as config.KeyErrors with paths below the pipeline.
func CompilePipeline(plugs []config.Plug, env Env) (Pipeline, error) {
	var p Pipeline
	var errs []error
	seen := make(map[string]int)
	for i, c := range plugs {
		env.Nth = seen[c.Name]
		seen[c.Name]++
		compiled, err := Compile(c, env)
		if err != nil {
			errs = append(errs, config.Within(fmt.Sprintf("[%d]", i), err))
			continue
		}
		p = append(p, compiled)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// Wrap puts the plugs around h; the first one of the pipeline runs first.
func (p Pipeline) Wrap(h http.Handler) http.Handler {
	for i := len(p) - 1; i >= 0; i-- {
		h = p[i].Wrap(h)
	}
	return h
}

// Names returns the plugs' names in order.
func (p Pipeline) Names() []string {
	names := make([]string, len(p))
	for i, c := range p {
		names[i] = c.Name
	}
	return names
}

// Sets returns the header fields that the plugs set upward.
func (p Pipeline) Sets() []string {
	var sets []string
	for _, c := range p {
		sets = append(sets, c.Sets...)
	}
	return sets
}

// Reads returns the header fields in which the plugs look for what the client
// has to say for itself.
func (p Pipeline) Reads() []string {
	var reads []string
	for _, c := range p {
		reads = append(reads, c.Reads...)
	}
	return reads
}

// Believes returns the header fields that the plugs set upward unless a
// trusted proxy has.
func (p Pipeline) Believes() []string {
	var believes []string
	for _, c := range p {
		believes = append(believes, c.Believes...)
	}
	return believes
}

// Keys returns the key sets that the plugs need.
func (p Pipeline) Keys() []*token.Set {
	var sets []*token.Set
	for _, c := range p {
		if c.Keys != nil {
			sets = append(sets, c.Keys)
		}
	}
	return sets
}
