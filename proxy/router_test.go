package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// mustTable compiles cfg; each endpoint answers with its key.
func mustTable(t testing.TB, cfg *config.Config) *Table {
	t.Helper()
	table, err := NewTable(cfg, plug.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range table.Endpoints {
		e.Serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%d %s", i, e.Pattern)
		})
	}
	return table
}

func TestFlattening(t *testing.T) {
	table := mustTable(t, &config.Config{
		Pipelines:   map[string][]config.Plug{"a": nil, "b": nil, "c": nil, "d": nil},
		PipeThrough: []string{"a"},
		Scopes: []config.Scope{{
			Path: "/live", Host: "Chat.Example.com", PipeThrough: []string{"b"},
			Routes: []config.Route{{Path: "/socket/*", PipeThrough: []string{"d"}}, {Path: "/"}},
			Scopes: []config.Scope{{
				Path: "/v2", PipeThrough: []string{"c"},
				Routes: []config.Route{{Path: "/*", Host: "*.example.com"}},
			}},
		}, {
			Routes: []config.Route{{Path: "/bare"}},
		}},
		Routes: []config.Route{{Path: "/*"}},
	})
	var got []string
	for _, e := range table.Endpoints {
		got = append(got, fmt.Sprintf("%s%s %v", e.Host, e.Pattern, e.Pipelines))
	}
	want := []string{
		"*.example.com/live/v2/* [a b c]",
		"Chat.Example.com/live/socket/* [a b d]",
		"Chat.Example.com/live [a b]",
		"/bare [a]",
		"/* [a]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMatch(t *testing.T) {
	table := mustTable(t, &config.Config{
		Scopes: []config.Scope{{
			Path: "/live", Host: "chat.example.com",
			Routes: []config.Route{
				{Path: "/socket/*"},
				{Path: "/exact"},
			},
		}, {
			Host:   "*.example.org",
			Routes: []config.Route{{Path: "/*"}},
		}},
		Routes: []config.Route{
			{Path: "/form", Methods: []string{"POST"}},
			{Path: "/form", Methods: []string{"PUT", "PATCH"}},
			{Path: "/café"},
			{Path: "/a b/*"},
			{Path: "/slash/"},
			{Path: "/v6", Host: "[::1]"},
		},
	})
	for _, tt := range []struct {
		method, host, target string
		want                 string // pattern, or status
		allow                string
	}{
		{"GET", "chat.example.com", "/live/socket", "/live/socket/*", ""},
		{"GET", "chat.example.com", "/live/socket/", "/live/socket/*", ""},
		{"GET", "chat.example.com", "/live/socket/websocket?vsn=2.0.0", "/live/socket/*", ""},
		{"GET", "chat.example.com", "/live/socketx", "404", ""},
		{"GET", "chat.example.com:4000", "/live/socket", "/live/socket/*", ""},
		{"GET", "CHAT.example.COM.", "/live/socket", "/live/socket/*", ""},
		{"GET", "other.example.com", "/live/socket", "404", ""},
		{"GET", "x.chat.example.com", "/live/socket", "404", ""},
		{"GET", "chat.example.com", "/live", "404", ""},
		{"GET", "chat.example.com", "/live/exact", "/live/exact", ""},
		{"GET", "chat.example.com", "/live/exact/", "404", ""},
		{"GET", "chat.example.com", "/live/exact/x", "404", ""},
		{"GET", "chat.example.com", "//live//exact", "/live/exact", ""},
		{"GET", "chat.example.com", "/li%76e/%65xact", "/live/exact", ""},
		{"GET", "chat.example.com", "/live%2fexact", "404", ""},
		{"GET", "chat.example.com", "/LIVE/exact", "404", ""},
		{"GET", "chat.example.com", "/live/../live/exact", "400", ""},
		{"GET", "a.example.org", "/anything", "/*", ""},
		{"GET", "a.b.example.org:80", "/", "/*", ""},
		{"GET", "a.example.org", "", "/*", ""},
		{"GET", "example.org", "/anything", "404", ""},
		{"GET", ".example.org", "/anything", "404", ""},
		{"GET", "[::1]:4000", "/v6", "/v6", ""},
		{"GET", "[::1]", "/v6", "/v6", ""},
		{"POST", "host", "/form", "/form", ""},
		{"PATCH", "host", "/form", "/form", ""},
		{"GET", "host", "/form", "405", "PATCH, POST, PUT"},
		{"HEAD", "host", "/form", "405", "PATCH, POST, PUT"},
		{"GET", "host", "/caf%c3%a9", "/café", ""},
		{"GET", "host", "/a%20b/c", "/a b/*", ""},
		{"GET", "host", "/slash/", "/slash/", ""},
		{"GET", "host", "/slash", "404", ""},
		{"GET", "host", "http://host/slash/", "/slash/", ""},
		{"OPTIONS", "host", "*", "400", ""},
		{"CONNECT", "host:443", "host:443", "400", ""},
		{"GET", "host", "/%", "400", ""},
	} {
		t.Run(tt.method+" "+tt.host+tt.target, func(t *testing.T) {
			e, problem := table.Match(requestFor(tt.method, tt.host, tt.target))
			got, allow := "", ""
			if problem != nil {
				got, allow = fmt.Sprint(problem.Status), problem.Header.Get("Allow")
			} else {
				got = e.Pattern
			}
			if got != tt.want || allow != tt.allow {
				t.Errorf("got %s, Allow %q; want %s, %q", got, allow, tt.want, tt.allow)
			}
		})
	}
}

// Paths that some backend reads as guarded ones either go through the guard
// or nowhere; others are let alone.
func TestMatchKeepsGuards(t *testing.T) {
	table := mustTable(t, guardedRoutes())
	for _, tt := range []struct{ target, want string }{
		{"/admin", "/admin/*"},
		{"//admin", "/admin/*"},
		{"/%61dmin/x", "/admin/*"},
		{"/admin/", "/admin/*"},
		{"/admin/a%2fb", "/admin/*"},
		{"/admin/a;b", "/admin/*"},
		{"/admin%2fx", "400"},
		{"/admin%2Fx", "400"},
		{"/admin;x", "400"},
		{"/admin;x/y", "400"},
		{"/;x/admin/y", "400"},
		{"/%2fadmin", "400"},
		{"/admin%3bx/y", "400"},
		{"/admin;x%2fy", "400"},
		{"/public/..%2fadmin", "400"},
		{"/public/../admin", "400"},
		{"/%2e%2e/admin", "400"},
		{"/exact", "/exact"},
		{"/exact/", "400"},
		{"/exact;a", "400"},
		{"/exact%2f", "400"},
		{"/public/admin", "/public/*"},
		{"/public/a%2fb", "/public/*"},
		{"/public%2fb", "/*"},
		{"/a;b=c/d;e", "/*"},
		{"/administer", "/*"},
		{"/exact/below", "/*"},
	} {
		t.Run(tt.target, func(t *testing.T) {
			e, problem := table.Match(requestFor("GET", "host", tt.target))
			got := ""
			if problem != nil {
				got = fmt.Sprint(problem.Status)
			} else {
				got = e.Pattern
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// A proxy that passes X-Forwarded-Host on must not let a client choose the
// open route by it, and the guarded host of the backend by Host.
func TestMatchKeepsGuardsOfHosts(t *testing.T) {
	cfg := guardedRoutes()
	cfg.Routes = nil
	cfg.Scopes = []config.Scope{
		{Host: "admin.test", PipeThrough: []string{"auth"}, Routes: []config.Route{{Path: "/page"}, {Path: "/deep/*", Methods: []string{"GET"}}}},
		{Host: "public.test", Routes: []config.Route{{Path: "/target/*", HostHeader: config.HostTarget}, {Path: "/*"}}},
		{Host: "other.test", Routes: []config.Route{{Path: "/*"}}},
		{PipeThrough: []string{"auth"}, Routes: []config.Route{{Path: "/*"}}},
	}
	table := mustTable(t, cfg)
	for _, tt := range []struct{ method, host, forwarded, target, want string }{
		{"GET", "admin.test", "", "/page", "/page"},
		{"GET", "public.test", "", "/page", "/*"},
		{"GET", "public.test", "admin.test", "/page", "/page"},
		{"GET", "public.test:80", "Public.Test", "/page", "/*"},
		{"GET", "admin.test", "public.test", "/page", "400"},
		{"GET", "Admin.Test.:4000", "public.test", "/page", "400"},
		{"GET", "admin.test", "public.test", "/page/", "400"},
		{"GET", "admin.test", "public.test", "/;x/deep/y", "400"},
		{"POST", "admin.test", "public.test", "/page", "400"},
		{"POST", "admin.test", "public.test", "/deep", "/*"},
		{"GET", "admin.test", "public.test", "/elsewhere", "/*"},
		{"GET", "admin.test", "public.test", "/target/page", "/target/*"},
		{"GET", "other.test", "public.test", "/page", "/*"},
		{"GET", "internal", "public.test", "/page", "/*"}, // the proxy's own, of no route's host
		{"GET", "", "public.test", "/page", "/*"},
	} {
		t.Run(strings.Join([]string{tt.method, tt.host, tt.forwarded, tt.target}, " "), func(t *testing.T) {
			r := requestFor(tt.method, tt.host, tt.target)
			e, problem := table.Match(plug.With(r, &plug.Info{Host: tt.forwarded}))
			got := ""
			if problem != nil {
				got = fmt.Sprint(problem.Status)
			} else {
				got = e.Pattern
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTableServes(t *testing.T) {
	table := mustTable(t, &config.Config{
		Endpoint:  []config.Plug{{Name: "request_id"}, {Name: "head"}},
		Pipelines: map[string][]config.Plug{"browser": {{Name: "accepts", Config: &config.AcceptsPlug{"html"}}, {Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "route"}}}},
		Routes: []config.Route{
			{Path: "/page", PipeThrough: []string{"browser"}, Methods: []string{"GET"}},
			{Path: "/twin", PipeThrough: []string{"browser"}},
		},
	})
	for _, tt := range []struct {
		method, target, accept string
		want                   int
	}{
		{"GET", "/page", "text/html", 200},
		{"HEAD", "/page", "text/html", 429}, // a GET by now; the first was never ended
		{"GET", "/twin", "text/html", 200},  // another route, another count
		{"GET", "/page", "image/png", 406},
		{"GET", "/none", "text/html", 404},
		{"POST", "/page", "text/html", 405},
	} {
		r := requestFor(tt.method, "host", tt.target)
		r.Header.Set("Accept", tt.accept)
		info := new(plug.Info)
		w := httptest.NewRecorder()
		table.ServeHTTP(w, plug.With(r, info))
		if w.Code != tt.want {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.target, w.Code, tt.want)
		}
		if info.RequestID == "" {
			t.Errorf("%s %s: no request id", tt.method, tt.target)
		}
		if w.Code != 200 && w.Header().Get("X-Request-Id") != info.RequestID {
			t.Errorf("%s %s: problem without the request id", tt.method, tt.target)
		}
	}
}

func TestTableErrorsCarryTheKey(t *testing.T) {
	_, err := NewTable(&config.Config{
		Endpoint:  []config.Plug{{Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "route"}}},
		Pipelines: map[string][]config.Plug{"p": {{Name: "head"}, {Name: "origin", Config: &config.OriginPlug{"a"}}}},
		Scopes:    []config.Scope{{Routes: []config.Route{{Path: "x", KeyPath: "scopes[0].routes[0]"}}}},
		Routes:    []config.Route{{Path: "/", KeyPath: "routes[0]", PipeThrough: []string{"q"}}},
	}, plug.Env{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"endpoint[0].limit.by: ",
		"pipelines.p[1].origin[0]: ",
		"scopes[0].routes[0].path: ",
		"routes[0].pipe_through: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no error at %s in\n%v", want, err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	cfg := &config.Config{}
	for i := range 100 {
		cfg.Routes = append(cfg.Routes, config.Route{Path: fmt.Sprintf("/service%d/socket/*", i)})
	}
	table := mustTable(b, cfg)
	r := requestFor("GET", "host", "/service99/socket/websocket?vsn=2.0.0")
	b.ReportAllocs()
	for b.Loop() {
		if _, problem := table.Match(r); problem != nil {
			b.Fatal(problem)
		}
	}
}
