package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/stentproxy/stent/config"
)

func TestReload(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want []map[string]any // nil for 204
	}{
		{"good", nil, nil},
		{"unreadable", errors.New("open stent.yaml: no such file"), []map[string]any{{"message": "open stent.yaml: no such file"}}},
		{"bad", parseError("routes:\n  - {path: /x, upstream: ap}\n  - {path: y, upstream: app}\nupstreams: {app: {targets: [\"ws://h:1\"]}}\n"), []map[string]any{
			{"file": "new.yaml", "line": 2.0, "column": 26.0, "path": "routes[0].upstream", "message": "unknown upstream \"ap\"", "suggestion": "app"},
			{"file": "new.yaml", "line": 3.0, "column": 12.0, "path": "routes[1].path", "message": "a path begins with a slash"},
		}},
		{"one", &config.Error{Path: "routes", Message: "wrong"}, []map[string]any{{"path": "routes", "message": "wrong"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, oneRoute("ws://127.0.0.1:1", ""), Options{Reload: func(context.Context) error { return tt.err }})
			got := r.request("POST", "/api/reload", nil)
			if tt.want == nil {
				if got.status != http.StatusNoContent {
					t.Errorf("got %d %s", got.status, got.body)
				}
				return
			}
			r.wantProblem(got, http.StatusUnprocessableEntity)
			var problem struct {
				Errors []map[string]any `json:"errors"`
			}
			if err := json.Unmarshal(got.body, &problem); err != nil || !reflect.DeepEqual(problem.Errors, tt.want) {
				t.Errorf("got %s, want %v", got.body, tt.want)
			}
		})
	}
	t.Run("no way to", func(t *testing.T) {
		r := run(t, oneRoute("ws://127.0.0.1:1", ""), Options{})
		r.wantProblem(r.request("POST", "/api/reload", nil), http.StatusNotImplemented)
	})
}

// parseError is what a bad file gives, as a command wraps it.
func parseError(yaml string) error {
	_, err := config.Parse("new.yaml", []byte(yaml))
	return fmt.Errorf("problems in the configuration:\n%w", err)
}

// TestReloadInForce reloads for real.
func TestReloadInForce(t *testing.T) {
	b := newBackend(t)
	var r *running
	next := ""
	r = run(t, oneRoute(b.url, ""), Options{Reload: func(context.Context) error {
		cfg, err := config.Parse("next.yaml", []byte(next))
		if err != nil {
			return err
		}
		return r.proxy.Reload(cfg)
	}})
	next = "listeners: [{address: \"127.0.0.1:0\"}]\nroutes: [{path: /other, upstream: none, handlers: [unheard_of]}]\n"
	r.wantProblem(r.request("POST", "/api/reload", nil), http.StatusUnprocessableEntity)
	c, s := r.dial("/")
	next = "listeners: [{address: \"127.0.0.1:0\"}]\nroutes: [{path: /other, upstream: none, handlers: [pass]}]\n"
	if got := r.request("POST", "/api/reload", nil); got.status != http.StatusNoContent {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	var routes struct{ Routes []struct{ Path string } }
	r.get("/api/routes", &routes)
	if len(routes.Routes) != 1 || routes.Routes[0].Path != "/other" {
		t.Errorf("routes %v", routes)
	}
	echoed(t, c, "still here")
	m := scrape(r)
	for name, want := range map[string]float64{
		`stent_config_snapshots`:                                 2,
		`stent_config_reloads_total{result="ok"}`:                1,
		`stent_config_reloads_total{result="failed"}`:            1,
		`stent_sessions{route="/*",state="open"}`:                1,
		`stent_sessions{route="/other",state="open"}`:            0,
		`stent_sessions_opened_total{route="/*"}`:                1,
		`stent_sessions_opened_total{route="/other"}`:            0,
		`stent_upstream_target_up{target="blue",upstream="app"}`: 0,
	} {
		if got, ok := m[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	s.Close(0, "")
	_, _, _ = read(t, c) // answers the close frame
	r.eventually("only one configuration is in use", func() bool { return scrape(r)["stent_config_snapshots"] == 1 })
}

// TestReloadToken changes the token and who may see metrics: what was asked
// for before counts no more, not even on a connection that it had opened.
func TestReloadToken(t *testing.T) {
	r := run(t, "admin: {address: \"127.0.0.1:0\", token: one}\n"+oneRoute("ws://127.0.0.1:1", ""), Options{})
	for _, tt := range []struct {
		name, admin            string // reloaded; nothing is
		one, two, none, metric int
	}{
		{"at first", "", 200, 401, 401, 401},
		{"another token", "token: two", 401, 200, 401, 401},
		{"public metrics", "token: two, metrics_public: true", 401, 200, 401, 200},
		{"no token", "metrics_public: false", 200, 200, 200, 200},
		{"the first again", "token: one", 200, 401, 401, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.admin != "" {
				cfg, err := config.Parse("next.yaml", []byte("listeners: [{address: \"127.0.0.1:0\"}]\nroutes: []\nadmin: {address: \"127.0.0.1:0\", "+tt.admin+"}\n"))
				if err != nil {
					t.Fatal(err)
				}
				if err := r.proxy.Reload(cfg); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []struct {
				path, token string
				want        int
			}{
				{"/api/tree", "one", tt.one},
				{"/api/tree", "two", tt.two},
				{"/api/tree", "", tt.none},
				{"/metrics", "", tt.metric},
				{"/healthz", "", 200},
			} {
				var fields []string
				if c.token != "" {
					fields = []string{"Authorization: Bearer " + c.token}
				}
				if got := r.request("GET", c.path, nil, fields...); got.status != c.want {
					t.Errorf("%s with token %q: got %d, want %d", c.path, c.token, got.status, c.want)
				}
			}
		})
	}
}
