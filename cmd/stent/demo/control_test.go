package demo

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

func TestControl(t *testing.T) {
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/sessions/b" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"session":"b","state":"held"}`)
	}))
	defer admin.Close()
	killed := 0
	handler := NewControl(admin.URL, admin.Client(), func() { killed++ })
	for _, tt := range []struct {
		name, method, path, site string
		status                   int
		body                     string
	}{
		{"a session", "GET", "/demo/session/b", "", 200, `{"session":"b","state":"held"}`},
		{"no such session", "GET", "/demo/session/c", "", 404, ""},
		{"a way out of the sessions", "GET", "/demo/session/..%2f..%2fapi%2fconfig", "", 404, ""},
		{"features", "GET", "/demo/features", "", 200, `{"counters":true,"kill":true}`},
		{"kill", "POST", "/demo/backend/kill", "same-origin", 202, ""},
		{"kill from elsewhere", "POST", "/demo/backend/kill", "cross-site", 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(tt.method, tt.path, nil)
			if tt.site != "" {
				req.Header.Set("Sec-Fetch-Site", tt.site)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, req)
			if w.Code != tt.status || tt.body != "" && w.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
	if killed != 1 {
		t.Errorf("killed %d times, want once", killed)
	}
}

func TestControlWithoutParts(t *testing.T) {
	handler := NewControl("", nil, nil)
	for path, method := range map[string]string{"/demo/session/b": "GET", "/demo/backend/kill": "POST"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("%s %s: got %d, want 404", method, path, w.Code)
		}
	}
}

func TestConfig(t *testing.T) {
	c, err := Config(Addresses{Listen: "127.0.0.1:1", Admin: "off", Backend: "127.0.0.1:2", Control: "127.0.0.1:3"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{c.Listeners[0].Address, c.Admin.Address,
		c.Upstreams["backend"].Targets[0].URL, c.Upstreams["control"].Targets[0].URL}, " ")
	if want := "127.0.0.1:1 off ws://127.0.0.1:2 http://127.0.0.1:3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	rules, ok := c.Routes[0].Handlers[0].Config.(*config.RulesHandler)
	if !ok || len(*rules) == 0 {
		t.Errorf("rules: got %#v", c.Routes[0].Handlers)
	}
}
