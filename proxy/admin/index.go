package admin

import (
	"net/http"

	"github.com/stentproxy/stent/proxy/plug"
)

// indexPage lists what can be looked at.
const indexPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>stent</title>
<h1>stent</h1>
<ul>
<li><a href="/api/sessions">sessions</a>
<li><a href="/api/upstreams">upstreams</a>
<li><a href="/api/tree">supervision tree</a>
<li><a href="/api/routes">routes</a>
<li><a href="/api/config">configuration</a>
<li><a href="/metrics">metrics</a>
<li><a href="/healthz">alive?</a> <a href="/readyz">ready?</a>
</ul>
</html>
`

// index answers the page that a browser begins with.
func (a *api) index(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	write(w, http.StatusOK, "text/html; charset=utf-8", []byte(indexPage))
	return nil
}
