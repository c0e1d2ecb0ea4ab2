package proxy

import (
	"net/http"
	"slices"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/longpoll"
	"github.com/stentproxy/stent/proxy/plug"
)

// Endpoint is a route with all that its scopes add to it.
type Endpoint struct {
	Route *config.Route
	// Pattern is the joined path, as it is written: "/live/socket/*". Logs and
	// metrics call the route by it.
	Pattern string
	// Host is the host pattern; empty for any host.
	Host string
	// Pipelines are the names of the pipelines that a request goes through, in
	// order.
	Pipelines []string
	// Mode says how frames will pass: relay or message. Whoever compiles the
	// route sets it; the router has no use for it.
	Mode string
	// Serve serves requests that have passed the plugs. Whoever compiles the
	// route sets it.
	Serve http.Handler

	polls   *longpoll.Table // set by whoever sets Serve
	plugs   plug.Pipeline
	handler http.Handler // plugs around Serve
	host    hostPattern
	path    pathPattern
}

// newEndpoint returns the endpoint of a route with the plugs of its
// pipelines.
func newEndpoint(f config.FlatRoute, plugs plug.Pipeline) (*Endpoint, error) {
	path, err := newPathPattern(f.FullPath)
	if err != nil {
		return nil, config.Within(f.KeyPath+".path", err)
	}
	e := &Endpoint{
		Route:     &f.Route,
		Pattern:   f.FullPath,
		Host:      f.FullHost,
		Pipelines: f.Pipelines,
		plugs:     plugs,
		host:      newHostPattern(f.FullHost),
		path:      path,
	}
	e.handler = plugs.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.Serve.ServeHTTP(w, r)
	}))
	return e, nil
}

// ServeHTTP runs the plugs of the endpoint's pipelines, then Serve.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := plug.From(r)
	info.Route, info.Stall = e.Pattern, e.Route.Timeouts.Write.Std()
	if call := pollOf(r); call != nil && e.Route.Longpoll {
		e.servePoll(w, r, call)
		return
	}
	e.handler.ServeHTTP(w, r)
}

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

func (e *Endpoint) hasMethod(method string) bool {
	return len(e.Route.Methods) == 0 || slices.Contains(e.Route.Methods, method)
}

// guards says whether e goes through a pipeline that other does not.
func (e *Endpoint) guards(other *Endpoint) bool {
	return slices.ContainsFunc(e.Pipelines, func(name string) bool {
		return !slices.Contains(other.Pipelines, name)
	})
}
