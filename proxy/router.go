package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/token"
)

// Table is the routes of one configuration. It does not change once it is in
// use.
type Table struct {
	// Endpoints are tried in order.
	Endpoints []*Endpoint

	front     plug.Pipeline
	pipelines map[string]plug.Pipeline
	handler   http.Handler // front around the routing
	// owned are the fields that are not their clients' to send.
	owned ownedFields
	// polls says that some route has long poll.
	polls bool
	// keys are the key sets that the plugs need.
	keys []*token.Set
}

// NewTable compiles the routes and plugs of a configuration. Its errors are
// config.KeyErrors.
func NewTable(cfg *config.Config, env plug.Env) (*Table, error) {
	t := &Table{
		pipelines: make(map[string]plug.Pipeline, len(cfg.Pipelines)),
	}
	var errs []error
	compile := func(key, name string, plugs []config.Plug) plug.Pipeline {
		env.Pipeline = name
		p, err := plug.CompilePipeline(plugs, env)
		errs = append(errs, config.Within(key, err))
		t.keys = append(t.keys, p.Keys()...)
		return p
	}
	t.front = compile("endpoint", "", cfg.Endpoint)
	inUse := []plug.Pipeline{t.front}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		t.pipelines[name] = compile("pipelines."+name, name, cfg.Pipelines[name])
	}
	for _, route := range cfg.Flatten() {
		var plugs plug.Pipeline
		for _, name := range route.Pipelines {
			p, ok := t.pipelines[name]
			if !ok {
				errs = append(errs, config.Within(route.KeyPath+".pipe_through", fmt.Errorf("no pipeline is called %q: %w", name, config.ErrChecked)))
			}
			plugs = append(plugs, p...)
		}
		inUse = append(inUse, plugs)
		e, err := newEndpoint(route, plugs)
		errs = append(errs, err)
		t.Endpoints = append(t.Endpoints, e)
		t.polls = t.polls || route.Longpoll
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t.owned = ownedBy(inUse)
	t.handler = t.front.Wrap(http.HandlerFunc(t.route))
	return t, nil
}

// ServeHTTP runs the plugs of the configuration's endpoint, which come before
// routing, and then the endpoint that the request belongs to.
func (t *Table) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t.polls {
		var call *pollCall
		if w, r, call = t.poll(w, r); call != nil {
			defer func() {
				if call.opening {
					plug.From(r).Refused = call.answer.Refused
				}
			}()
		}
	}
	t.handler.ServeHTTP(w, r)
}

func (t *Table) route(w http.ResponseWriter, r *http.Request) {
	problem := checkForm(r)
	if problem != nil {
		problem.ServeHTTP(w, r)
		return
	}
	asked := r
	if pollOf(r) != nil && r.Method == http.MethodOptions {
		asked = new(*r)
		asked.Method = http.MethodGet
	}
	e, problem := t.Match(asked)
	if problem != nil {
		problem.ServeHTTP(w, r)
		return
	}
	e.ServeHTTP(w, r)
}

// Match returns the first endpoint that has the request's path, host and
// method. It refuses a path that a backend might read as one of an earlier
// endpoint, where that would step past a pipeline, and a Host that would do so
// where a proxy names another host.
func (t *Table) Match(r *http.Request) (*Endpoint, *Problem) {
	raw, _, ok := rawTarget(r)
	if !ok {
		return nil, badRequest("the request target names no path")
	}
	path, ok := decodePath(raw)
	if !ok {
		return nil, badRequest("the path is malformed, or has segments that a backend may read as another path")
	}
	sent := hostName(r.Host)
	host := sent
	if asked := plug.From(r).Host; asked != "" {
		host = hostName(asked)
	}
	e, problem := t.find(path, host, r.Method)
	if problem == nil && sent != host && e.Route.HostHeader != config.HostTarget && t.crosses(e, path, sent, r.Method) {
		return nil, badRequest("the Host is that of a route with pipelines that the route of X-Forwarded-Host does not go through")
	}
	return e, problem
}

// find is Match for a decoded path and the name of a host.
func (t *Table) find(path, host, method string) (*Endpoint, *Problem) {
	var allow []string
	for i, e := range t.Endpoints {
		if !e.host.match(host) || !e.path.match(path) {
			continue
		}
		if !e.hasMethod(method) {
			allow = append(allow, e.Route.Methods...)
			continue
		}
		if stepsPast(t.Endpoints[:i], e, path, host, method) {
			return nil, badRequest("a backend may read the path as that of another route")
		}
		return e, nil
	}
	if allow != nil {
		slices.Sort(allow)
		return nil, methodNotAllowed(slices.Compact(allow))
	}
	return nil, notFound()
}

// crosses says whether a backend that goes by the Host, which is sent up as it
// came, might take a request to e for one to an endpoint of that host, with a
// pipeline that e does not have. Endpoints of any host are not meant: proxies
// that name the client's host often send one of their own as the Host.
func (t *Table) crosses(e *Endpoint, path, host, method string) bool {
	named := slices.Clone(t.Endpoints)
	named = slices.DeleteFunc(named, func(e *Endpoint) bool { return e.host.any() })
	other, problem := (&Table{Endpoints: named}).find(path, host, method)
	if problem == nil {
		return other.guards(e)
	}
	return problem.Status == http.StatusBadRequest || stepsPast(named, e, path, host, method)
}

// stepsPast says whether a backend might read the path as one that belongs to
// an endpoint before e, with a pipeline that e does not have.
func stepsPast(before []*Endpoint, e *Endpoint, path, host, method string) bool {
	past := func(reading string) bool {
		for _, b := range before {
			if b.host.match(host) && b.hasMethod(method) && b.path.resembles(reading) {
				return b.guards(e)
			}
		}
		return false
	}
	return past(path) || slices.ContainsFunc(readings(path), past)
}
