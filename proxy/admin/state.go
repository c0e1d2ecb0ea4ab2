package admin

import (
	"net/http"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// showTree answers the supervision tree.
func (a *api) showTree(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	return a.answer(w, a.proxy.Tree().Snapshot())
}

// listRoutes answers the routes in the order in which they are tried.
func (a *api) listRoutes(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	return a.answer(w, struct {
		Routes []proxy.RouteInfo `json:"routes"`
	}{a.proxy.Snapshot().Routes()})
}

// showConfig answers the configuration in force, without its secrets.
func (a *api) showConfig(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	return a.answer(w, a.proxy.Config().Redacted())
}
