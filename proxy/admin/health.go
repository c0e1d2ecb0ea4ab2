package admin

import (
	"net/http"

	"github.com/stentproxy/stent/proxy/plug"
)

// healthz answers as long as the process does.
func (a *api) healthz(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("alive\n"))
	return nil
}

// readyz answers 200 while new clients are welcome.
func (a *api) readyz(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	if !a.proxy.Ready() {
		return &plug.Problem{Status: http.StatusServiceUnavailable, Detail: "the proxy is starting or draining"}
	}
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ready\n"))
	return nil
}
