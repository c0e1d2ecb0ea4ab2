package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// Table is the routes of one configuration. It does not change once it is in
// use.
type Table struct {
	// Endpoints are tried in order.
	Endpoints []*Endpoint

	// sets holds the header fields that a plug of any pipeline sets upward.
	sets      map[string]bool
	front     plug.Pipeline
	pipelines map[string]plug.Pipeline
	handler   http.Handler
}

// NewTable compiles the routes and plugs of a configuration. Its errors are
// config.KeyErrors.
func NewTable(cfg *config.Config, env plug.Env) (*Table, error) {
	t := &Table{sets: make(map[string]bool), pipelines: make(map[string]plug.Pipeline, len(cfg.Pipelines))}
	var errs []error
	compile := func(key, name string, plugs []config.Plug) plug.Pipeline {
		env.Pipeline = name
		p, err := plug.CompilePipeline(plugs, env)
		errs = append(errs, config.Within(key, err))
		for _, name := range p.Sets() {
			t.sets[http.CanonicalHeaderKey(name)] = true
		}
		return p
	}
	t.front = compile("endpoint", "", cfg.Endpoint)
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		t.pipelines[name] = compile("pipelines."+name, name, cfg.Pipelines[name])
	}
	t.Endpoints = flatten(cfg)
	for _, e := range t.Endpoints {
		var err error
		if e.path, err = parsePattern(e.Pattern); err != nil {
			errs = append(errs, config.Within(e.Key+".path", err))
		}
		for _, name := range e.Pipelines {
			p, ok := t.pipelines[name]
			if !ok {
				errs = append(errs, config.Within(e.Key+".pipe_through", fmt.Errorf("no pipeline is called %q", name)))
			}
			e.plugs = append(e.plugs, p...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t.handler = t.front.Wrap(http.HandlerFunc(t.route))
	return t, nil
}

// ServeHTTP runs the endpoint's plugs and then the handler of the endpoint
// that the request belongs to.
func (t *Table) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.handler.ServeHTTP(w, r) }

func (t *Table) route(w http.ResponseWriter, r *http.Request) {
	e, problem := t.Match(r)
	if problem != nil {
		problem.ServeHTTP(w, r)
		return
	}
	plug.From(r).Route = e.Pattern
	e.Handler.ServeHTTP(w, r)
}

// Match returns the first endpoint that has the request's path, host and
// method. It refuses a path that a backend might read as one of an earlier
// endpoint, where that would step past a pipeline.
func (t *Table) Match(r *http.Request) (*Endpoint, *Problem) {
	raw, _, ok := rawTarget(r)
	if !ok {
		return nil, badRequest("the request target names no path")
	}
	path, ok := decodePath(raw)
	if !ok {
		return nil, badRequest("the path is malformed, or has segments that a backend may read as another path")
	}
	host := plug.From(r).Host
	if host == "" {
		host = r.Host
	}
	host = hostName(host)
	var allow []string
	for i, e := range t.Endpoints {
		if !matchHost(e.Host, host) || !e.path.match(path) {
			continue
		}
		if !e.hasMethod(r.Method) {
			allow = append(allow, e.Route.Methods...)
			continue
		}
		if stepsPast(t.Endpoints[:i], e, path, host, r.Method) {
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

// stepsPast says whether a backend might read the path as one that belongs to
// an endpoint before e, with a pipeline that e does not have.
func stepsPast(before []*Endpoint, e *Endpoint, path, host, method string) bool {
	past := func(reading string) bool {
		for _, b := range before {
			if matchHost(b.Host, host) && b.hasMethod(method) && b.path.resembles(reading) {
				return !containsAll(e.Pipelines, b.Pipelines)
			}
		}
		return false
	}
	return past(path) || slices.ContainsFunc(readings(path), past)
}

func containsAll(all, some []string) bool {
	for _, s := range some {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

func (e *Endpoint) hasMethod(method string) bool {
	return len(e.Route.Methods) == 0 || slices.Contains(e.Route.Methods, method)
}

// pathPattern is a compiled path of a route.
type pathPattern struct {
	// path is decoded as request paths are. For a prefix it is what stands
	// before the last slash, so empty for "/*".
	path     string
	prefix   bool
	segments int
}

// parsePattern compiles "/x" or "/x/*".
func parsePattern(s string) (pathPattern, error) {
	var p pathPattern
	s, p.prefix = strings.CutSuffix(s, "/*")
	if strings.Contains(s, "*") {
		return p, errors.New(`"*" can only be the last segment`)
	}
	if s == "" && p.prefix {
		return p, nil
	}
	if !strings.HasPrefix(s, "/") {
		return p, errors.New(`a path begins with "/"`)
	}
	path, ok := decodePath(s)
	if !ok {
		return p, fmt.Errorf("no request could have the path %q", s)
	}
	p.path = path
	if p.prefix {
		p.path = strings.TrimSuffix(path, "/")
	}
	p.segments = strings.Count(strings.TrimSuffix(path, "/"), "/")
	return p, nil
}

// match says whether the pattern has the decoded path.
func (p pathPattern) match(path string) bool {
	if !p.prefix {
		return path == p.path
	}
	rest, ok := strings.CutPrefix(path, p.path)
	return ok && (rest == "" || rest[0] == '/')
}

// resembles is match for a backend that does not mind a slash at the end.
func (p pathPattern) resembles(path string) bool {
	return p.match(path) || !p.prefix && strings.TrimSuffix(p.path, "/") == strings.TrimSuffix(path, "/")
}

// hostName returns the name in a Host field: in lower case, without its port
// and the dot of the DNS root.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// matchHost says whether a host pattern has the name. "*.example.com" has all
// names below example.com, at any depth.
func matchHost(pattern, name string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return pattern == "" || pattern == name
}
