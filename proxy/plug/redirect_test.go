package plug

import (
	"net/http"
	"testing"

	"github.com/stentproxy/stent/config"
)

func TestRedirect(t *testing.T) {
	for _, tt := range []struct {
		name, to, target string
		status           int
		want             string // "": it passes
	}{
		{"to https", "https://{host}{uri}", "http://a.test/x%2Fy?q=%zz;1", 308, "https://a.test/x%2Fy?q=%zz;1"},
		{"there already", "http://{host}{uri}", "http://a.test/x?q", 302, ""},
		{"there already, by path", "/x?q", "http://a.test/x?q", 302, ""},
		{"to another host", "{scheme}://www.a.test{path}", "http://a.test/x?q", 301, "http://www.a.test/x"},
		{"a part of the query", "/new?from={path}&{query}", "http://a.test/x?q=1", 303, "/new?from=/x&q=1"},
		{"no other host by two slashes", "/{path}", "http://a.test//evil.test/", 302, "/evil.test/"},
		{"no loop", "/{path}", "http://a.test/evil.test", 302, ""},
		{"encoded line end stays encoded", "https://b.test{uri}", "http://a.test/%0d%0aSet-Cookie:x?%0d%0a", 302, "https://b.test/%0d%0aSet-Cookie:x?%0d%0a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := compile(t, "redirect", &config.RedirectPlug{To: tt.to, Status: tt.status}, Env{}).Wrap(ok(nil))
			r, info := request("GET", tt.target)
			info.EditResponse(func(h http.Header) { h.Set("X-Edited", "yes") })
			w := status(h, r)
			if tt.want == "" {
				if w.Code != 200 {
					t.Errorf("got %d to %q, want it passed", w.Code, w.Header().Get("Location"))
				}
				return
			}
			if w.Code != tt.status || w.Header().Get("Location") != tt.want || w.Header().Get("X-Edited") != "yes" {
				t.Errorf("got %d to %q, want %d to %q", w.Code, w.Header().Get("Location"), tt.status, tt.want)
			}
		})
	}
}

func TestRedirectKnowsItsNames(t *testing.T) {
	_, err := Compile(config.Plug{Name: "redirect", Config: &config.RedirectPlug{To: "/{user}", Status: 302}}, Env{})
	if err == nil {
		t.Error("compiled {user}")
	}
}
