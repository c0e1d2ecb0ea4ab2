package admin

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// api is what the endpoints work on.
type api struct {
	proxy  *proxy.Proxy
	log    *zap.Logger
	reload func(context.Context) error // or nil
}

// action serves one method of an endpoint. It answers, or returns the problem
// that is to be answered.
type action func(http.ResponseWriter, *http.Request) *plug.Problem

// methods are the actions of an endpoint by HTTP method.
type methods map[string]action

// endpoint is one path of the API.
type endpoint struct {
	open    func(config.Admin) bool // says that no token is needed; nil: it is
	methods methods
}

// routes is the API's table of contents.
func (a *api) routes(metrics http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	for path, e := range map[string]endpoint{
		"/{$}":     get(a.index),
		"/healthz": open(a.healthz),
		"/readyz":  open(a.readyz),
		"/metrics": {open: metricsPublic, methods: methods{"GET": serve(metrics)}},

		"/api/sessions":                    get(a.listSessions),
		"/api/sessions/{session}":          {methods: methods{"GET": a.showSession, "DELETE": a.closeSession}},
		"/api/sessions/{session}/messages": post(a.pushToSession),
		"/api/ids/{id}":                    {methods: methods{"DELETE": a.closeID}},
		"/api/ids/{id}/messages":           post(a.pushToID),

		"/api/revocations": {methods: methods{"GET": a.listRevocations, "POST": a.revoke, "DELETE": a.restore}},

		"/api/upstreams":                       get(a.listUpstreams),
		"/api/upstreams/{pool}/{target}/drain": {methods: methods{"PUT": a.drainTarget, "DELETE": a.undrainTarget}},

		"/api/tree":   get(a.showTree),
		"/api/routes": get(a.listRoutes),
		"/api/config": get(a.showConfig),
		"/api/reload": post(a.reloadConfig),
	} {
		mux.Handle(path, e)
	}
	mux.Handle("/", notFound("the admin API has no such path"))
	return mux
}

func get(do action) endpoint  { return endpoint{methods: methods{"GET": do}} }
func post(do action) endpoint { return endpoint{methods: methods{"POST": do}} }
func open(do action) endpoint { return endpoint{open: always, methods: methods{"GET": do}} }

func always(config.Admin) bool          { return true }
func metricsPublic(c config.Admin) bool { return c.MetricsPublic }

// serve makes an action of a handler that answers its problems itself.
func serve(h http.Handler) action {
	return func(w http.ResponseWriter, r *http.Request) *plug.Problem {
		h.ServeHTTP(w, r)
		return nil
	}
}

func isOpen(h http.Handler, terms config.Admin) bool {
	e, ok := h.(endpoint)
	return ok && e.open != nil && e.open(terms)
}

// ServeHTTP implements http.Handler. Whoever may GET may HEAD.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if do, ok := e.methods[method]; ok {
		if problem := do(w, r); problem != nil {
			problem.ServeHTTP(w, r)
		}
		return
	}
	allow := slices.Sorted(maps.Keys(e.methods))
	if slices.Contains(allow, http.MethodGet) {
		allow = append(allow, http.MethodHead)
	}
	p := &plug.Problem{Status: http.StatusMethodNotAllowed, Detail: "this resource does not have this method"}
	p.Set("Allow", strings.Join(allow, ", ")).ServeHTTP(w, r)
}
