// Package plug holds the steps that a request takes before it becomes a
// session or is proxied: one file for each plug that can be named in a
// pipeline. A plug is ordinary http.Handler wrapping. It may answer itself,
// which stops the pipeline, or tell the rest of the way about the request
// through Info.
package plug

import (
	"fmt"
	"net/http"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token"
	"go.uber.org/zap"
)

// Env is what plugs are compiled in.
type Env struct {
	Log *zap.Logger
	// Counts outlives a reload, so that sessions opened under an older
	// configuration still count.
	Counts *Counts
	// Rates outlives a reload, too.
	Rates *Rates
	// Sets are the key sets that issuers publish, shared between plugs and
	// configurations.
	Sets *token.Sets
	// Revocations belong to the process; nil is none.
	Revocations *token.Revocations
	// Pipeline is the name of the pipeline that the plug stands in; empty in
	// the endpoint, before routing.
	Pipeline string
	// Nth tells apart the plugs of one pipeline that would share state.
	Nth int
}

// Compiled is a plug that is ready to run.
type Compiled struct {
	Name string
	Wrap func(http.Handler) http.Handler
	// Sets names the header fields that the plug sets upward. They are
	// dropped from every client's request, on all routes, so that a backend
	// may believe them: at the door, or on the way up where a plug Reads them.
	Sets []string
	// Reads names the fields in which the plug looks for what the client has
	// to say for itself, whatever others set in them.
	Reads []string
	// Believes names the fields that the plug sets upward, too, but takes over
	// from trusted proxies: they are dropped from all others.
	Believes []string
	// Keys is the key set that the plug needs; nil is none.
	Keys *token.Set
}

// compilers makes a plug of its configuration, by the name in YAML.
var compilers = map[string]func(any, Env) (Compiled, error){
	"accepts":        of(accepts),
	"basic_auth":     of(basicAuth),
	"csrf":           of(csrf),
	"forward_auth":   of(forwardAuth),
	"head":           of(head),
	"headers":        of(headers),
	"ip":             of(ip),
	"jwt":            of(jwt),
	"limit":          of(limit),
	"logger":         of(logger),
	"origin":         of(origin),
	"rate":           of(rate),
	"redirect":       of(redirect),
	"request_id":     of(requestID),
	"secure_headers": of(secureHeaders),
	"session":        of(cookieSession),
	"static":         of(static),
}

// of lifts a compiler of one plug's type to the type of the map above. A
// plug without a configuration gets the zero value.
func of[C any](compile func(*C, Env) (Compiled, error)) func(any, Env) (Compiled, error) {
	return func(value any, env Env) (Compiled, error) {
		if value == nil {
			value = new(C)
		}
		c, ok := value.(*C)
		if !ok {
			return Compiled{}, fmt.Errorf("configuration is a %T, not a %T", value, c)
		}
		return compile(c, env)
	}
}

// Compile makes one plug of its configuration. Errors are config.KeyErrors
// with paths below p.
func Compile(p config.Plug, env Env) (Compiled, error) {
	compile, ok := compilers[p.Name]
	if !ok {
		return Compiled{}, fmt.Errorf("no plug is called %q", p.Name)
	}
	c, err := compile(p.Config, env)
	if err != nil {
		return Compiled{}, config.Within(p.Name, err)
	}
	c.Name = p.Name
	return c, nil
}
