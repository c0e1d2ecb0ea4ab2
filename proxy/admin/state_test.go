package admin

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/stentproxy/stent/supervisor"
)

func TestTree(t *testing.T) {
	b := newBackend(t)
	r := run(t, "supervisor: {partitions: 2}\n"+oneRoute(b.url, ""), Options{})
	r.dial("/")
	var got supervisor.Node
	r.get("/api/tree", &got)
	if got.Name != "stent" || got.Kind != "supervisor" {
		t.Errorf("root is %s %q", got.Kind, got.Name)
	}
	services, workers := map[string]bool{}, int64(0)
	for _, branch := range got.Children {
		for _, n := range branch.Children {
			services[n.Name] = n.Kind == "service"
			if n.Workers != nil {
				workers += *n.Workers
			}
		}
	}
	if !services["admin 127.0.0.1:0"] || !services["listener 127.0.0.1:0"] {
		t.Errorf("services %v", services)
	}
	if workers != 1 {
		t.Errorf("%d workers, want 1", workers)
	}
}

func TestRoutes(t *testing.T) {
	r := run(t, `
pipelines: {tidy: [secure_headers]}
scopes:
  - path: /live
    host: chat.example.com
    pipe_through: [tidy]
    routes: [{path: /socket/*, upstream: app, methods: [GET], continuity: {}}]
routes:
  - {path: /alone, upstream: none, handlers: [pass]}
  - {path: /*, upstream: app, http: true}
upstreams: {app: {targets: ["ws://127.0.0.1:1"]}}
`, Options{})
	var got struct{ Routes []map[string]any }
	r.get("/api/routes", &got)
	none := []any{}
	want := []map[string]any{
		{"path": "/live/socket/*", "host": "chat.example.com", "methods": []any{"GET"}, "pipelines": []any{"tidy"}, "plugs": []any{"secure_headers"},
			"handlers": none, "mode": "relay", "upstream": "app", "http": false, "continuity": true},
		{"path": "/alone", "host": "", "methods": none, "pipelines": none, "plugs": none,
			"handlers": []any{"pass"}, "mode": "message", "upstream": "none", "http": false, "continuity": false},
		{"path": "/*", "host": "", "methods": none, "pipelines": none, "plugs": none,
			"handlers": none, "mode": "relay", "upstream": "app", "http": true, "continuity": false},
	}
	if !reflect.DeepEqual(got.Routes, want) {
		t.Errorf("got  %v\nwant %v", got.Routes, want)
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	t.Setenv("TEST_UPSTREAM", "127.0.0.1:1")
	r := run(t, "admin: {address: \"127.0.0.1:0\", token: s3cret}\n"+oneRoute("ws://${TEST_UPSTREAM}", ""), Options{})
	got := r.request("GET", "/api/config", nil, "Authorization: Bearer s3cret")
	if got.status != http.StatusOK || strings.Contains(string(got.body), "s3cret") || strings.Contains(string(got.body), "127.0.0.1:1\"") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	for _, want := range []string{`"token":"[redacted]"`, `ws://${TEST_UPSTREAM}`, `"drain":"1s"`} {
		if !strings.Contains(string(got.body), want) {
			t.Errorf("%s is not in %s", want, got.body)
		}
	}
}

func TestIndex(t *testing.T) {
	r := run(t, oneRoute("ws://127.0.0.1:1", ""), Options{})
	got := r.request("GET", "/", nil)
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") || got.header.Get("Content-Security-Policy") == "" {
		t.Fatalf("got %d %v", got.status, got.header)
	}
	links := 0
	for part := range strings.SplitSeq(string(got.body), `href="`) {
		path, _, ok := strings.Cut(part, `"`)
		if !ok || !strings.HasPrefix(path, "/") {
			continue
		}
		links++
		if got := r.request("GET", path, nil); got.status != http.StatusOK {
			t.Errorf("%s: got %d", path, got.status)
		}
	}
	if links < 8 {
		t.Errorf("%d links", links)
	}
}

func TestMethods(t *testing.T) {
	r := run(t, oneRoute("ws://127.0.0.1:1", ""), Options{})
	for _, tt := range []struct {
		method, path string
		want         int
		allow        string
	}{
		{"HEAD", "/healthz", 200, ""},
		{"HEAD", "/api/sessions", 200, ""},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"OPTIONS", "/api/sessions", 405, "GET, HEAD"},
		{"PATCH", "/api/sessions/X", 405, "DELETE, GET, HEAD"},
		{"GET", "/api/reload", 405, "POST"},
		{"HEAD", "/api/reload", 405, "POST"},
		{"GET", "/api/sessions/X/messages", 405, "POST"},
		{"GET", "/api/ids/X", 405, "DELETE"},
		{"PUT", "/api/revocations", 405, "DELETE, GET, POST, HEAD"},
		// What is to come.
		{"GET", "/api/sessions/X/tap", 404, ""},
		{"GET", "/api/events", 404, ""},
		{"GET", "/api", 404, ""},
		{"GET", "/api/sessions/", 404, ""},
	} {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			r := *r
			r.t = t
			got := r.request(tt.method, tt.path, nil)
			if got.status != tt.want || got.header.Get("Allow") != tt.allow {
				t.Errorf("got %d, Allow %q; want %d, %q", got.status, got.header.Get("Allow"), tt.want, tt.allow)
			}
			if tt.want >= 400 && tt.method != "HEAD" {
				r.wantProblem(got, tt.want)
			}
		})
	}
}
