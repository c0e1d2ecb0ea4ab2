package plug

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/stentproxy/stent/config"
)

// redirectNames are the parts of a request that a redirect may repeat.
var redirectNames = map[string]func(*http.Request, *Info) string{
	"scheme": func(_ *http.Request, i *Info) string { return i.Scheme },
	"host":   func(_ *http.Request, i *Info) string { return i.Host },
	"path":   func(r *http.Request, _ *Info) string { return pathOf(r) },
	"query":  func(r *http.Request, _ *Info) string { return r.URL.RawQuery },
	"uri":    func(r *http.Request, _ *Info) string { return uriOf(r) },
}

var braced = regexp.MustCompile(`\{[^{}]*\}`)

// redirect sends clients elsewhere, but for those that are there.
func redirect(c *config.RedirectPlug, _ Env) (Compiled, error) {
	for _, name := range braced.FindAllString(c.To, -1) {
		if redirectNames[strings.Trim(name, "{}")] == nil {
			return Compiled{}, config.Within("to", fmt.Errorf("%s is none of {scheme}, {host}, {path}, {query} and {uri}", name))
		}
	}
	if c.Status < 300 || c.Status > 308 {
		return Compiled{}, config.Within("status", fmt.Errorf("%d is no redirect", c.Status))
	}
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := From(r)
			location := braced.ReplaceAllStringFunc(c.To, func(name string) string {
				return redirectNames[strings.Trim(name, "{}")](r, info)
			})
			if strings.HasPrefix(c.To, "/") {
				// "/{path}" of "//evil.example" must not name another host.
				location = "/" + strings.TrimLeft(location, `/\`)
			}
			if location == uriOf(r) || location == info.Scheme+"://"+info.Host+uriOf(r) {
				next.ServeHTTP(w, r)
				return
			}
			h := w.Header()
			info.ApplyResponse(h)
			h.Set("Location", location)
			h.Set("Content-Length", "0")
			w.WriteHeader(c.Status)
		})
	}}, nil
}

// pathOf is the request's path as it was sent, with its leading slash: what
// is put behind a host must not become a part of it.
func pathOf(r *http.Request) string { return "/" + strings.TrimPrefix(r.URL.EscapedPath(), "/") }

func uriOf(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return pathOf(r)
	}
	return pathOf(r) + "?" + r.URL.RawQuery
}
