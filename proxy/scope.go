package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// Endpoint is a route with all that its scopes add to it.
type Endpoint struct {
	Route *config.Route
	// Key is where the route stands in the configuration, such as
	// scopes[0].routes[2].
	Key string
	// Pattern is the joined path, as it is written: "/live/socket/*". Logs and
	// metrics call the route by it.
	Pattern string
	// Host is the host pattern in lower case; empty for any host.
	Host string
	// Pipelines are the names of the pipelines that a request goes through, in
	// order, each once.
	Pipelines []string
	// Mode says how frames will pass: relay or message. The compiler of the
	// route sets it; the router has no use for it.
	Mode string
	// Handler serves requests behind the pipelines' plugs. The compiler of the
	// route sets it.
	Handler http.Handler

	plugs plug.Pipeline
	path  pathPattern
}

// Wrap puts the plugs of the endpoint's pipelines around h.
func (e *Endpoint) Wrap(h http.Handler) http.Handler { return e.plugs.Wrap(h) }

// Plugs returns the names of the plugs that a request goes through.
func (e *Endpoint) Plugs() []string { return e.plugs.Names() }

// UpURI returns the path and query of r as they are sent up: the client's
// own, byte for byte, without what strip_prefix takes away. It may be empty
// or a query alone; the target's own path is put in front.
func (e *Endpoint) UpURI(r *http.Request) string {
	if !e.Route.StripPrefix {
		return upURI(r, 0)
	}
	return upURI(r, e.path.segments)
}

// within is what the scopes around a route say.
type within struct {
	path, host  string
	pipeThrough []string
}

// enter returns what holds inside a scope, or for a route.
func (o within) enter(path, host string, pipeThrough []string) within {
	o.path = config.JoinPath(o.path, path)
	if host != "" {
		o.host = host
	}
	o.pipeThrough = slices.Clone(o.pipeThrough)
	for _, name := range pipeThrough {
		// Going through a pipeline twice would count a session twice.
		if !slices.Contains(o.pipeThrough, name) {
			o.pipeThrough = append(o.pipeThrough, name)
		}
	}
	return o
}

// flatten lists the routes of a configuration in the order in which they are
// tried: those in scopes before those beside them.
func flatten(cfg *config.Config) []*Endpoint {
	outer := within{pipeThrough: cfg.PipeThrough}.enter("", "", nil)
	return flattenScope(outer, "", cfg.Scopes, cfg.Routes)
}

func flattenScope(o within, key string, scopes []config.Scope, routes []config.Route) []*Endpoint {
	var list []*Endpoint
	for i := range scopes {
		s := &scopes[i]
		inner := o.enter(s.Path, s.Host, s.PipeThrough)
		list = append(list, flattenScope(inner, fmt.Sprintf("%sscopes[%d].", key, i), s.Scopes, s.Routes)...)
	}
	for i := range routes {
		r := &routes[i]
		inner := o.enter(r.Path, r.Host, r.PipeThrough)
		list = append(list, &Endpoint{
			Route:     r,
			Key:       fmt.Sprintf("%sroutes[%d]", key, i),
			Pattern:   inner.path,
			Host:      strings.ToLower(inner.host),
			Pipelines: inner.pipeThrough,
		})
	}
	return list
}
