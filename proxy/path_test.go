package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// requestFor is a request as net/http hands it over, with target as it stood
// in the request line.
func requestFor(method, host, target string) *http.Request {
	r := httptest.NewRequest(method, "/", nil)
	r.Host, r.RequestURI = host, target
	return r
}

func TestDecodePath(t *testing.T) {
	for _, tt := range []struct {
		raw, want string
		refused   bool
	}{
		{raw: "/", want: "/"},
		{raw: "/a", want: "/a"},
		{raw: "/a/", want: "/a/"},
		{raw: "//", want: "/"},
		{raw: "//admin", want: "/admin"},
		{raw: "/a///b//", want: "/a/b/"},
		{raw: "/%61/b%20c", want: "/a/b c"},
		{raw: "/caf%C3%A9", want: "/café"},
		{raw: "/café", want: "/café"},
		{raw: "/a%2fb", want: "/a\x00b"},
		{raw: "/a%2Fb", want: "/a\x00b"},
		{raw: "/a%252fb", want: "/a%2fb"},
		{raw: "/a;b=c/d", want: "/a;b=c/d"},
		{raw: "/a%3bb", want: "/a;b"},
		{raw: "/...", want: "/..."},
		{raw: "/.a/a./..a", want: "/.a/a./..a"},
		{raw: "/a+b", want: "/a+b"},
		{raw: "/a%3fb", want: "/a?b"},

		{raw: "/.", refused: true},
		{raw: "/..", refused: true},
		{raw: "/./a", refused: true},
		{raw: "/a/../b", refused: true},
		{raw: "/a/..", refused: true},
		{raw: "/%2e", refused: true},
		{raw: "/%2e%2e/", refused: true},
		{raw: "/a/%2E%2e/b", refused: true},
		{raw: "/a/.%2e/b", refused: true},
		{raw: "/a/%2e./b", refused: true},
		{raw: "/public/..%2fadmin", refused: true},
		{raw: "/public%2f..%2fadmin", refused: true},
		{raw: "/public/%2e%2e%2fadmin", refused: true},
		{raw: "/public/x%2f..", refused: true},
		{raw: "/public/..;/admin", refused: true},
		{raw: "/public/..;a=b/admin", refused: true},
		{raw: "/public/..%3b/admin", refused: true},
		{raw: "/public/.;/admin", refused: true},
		{raw: `/a\b`, refused: true},
		{raw: "/a%5cb", refused: true},
		{raw: `/public/..%5Cadmin`, refused: true},
		{raw: "/a%00", refused: true},
		{raw: "/a\x00", refused: true},
		{raw: "/a#b", refused: true},
		{raw: "/a%", refused: true},
		{raw: "/a%2", refused: true},
		{raw: "/a%zz", refused: true},
		{raw: "/a%u002e", refused: true},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			got, ok := decodePath(tt.raw)
			if ok == tt.refused {
				t.Fatalf("ok %v, want %v", ok, !tt.refused)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRawTarget(t *testing.T) {
	for _, tt := range []struct {
		target, path, query string
		refused             bool
	}{
		{target: "/a/b?c=d;e", path: "/a/b", query: "?c=d;e"},
		{target: "/a?", path: "/a", query: "?"},
		{target: "/a?b?c#d", path: "/a", query: "?b?c#d"},
		{target: "//host/a", path: "//host/a"},
		{target: "http://host/a?b", path: "/a", query: "?b"},
		{target: "http://host", path: "/"},
		{target: "http://host?a", path: "/", query: "?a"},
		{target: "/a?u=http://b/c", path: "/a", query: "?u=http://b/c"},
		{target: "*", refused: true},
		{target: "host:443", refused: true},
	} {
		t.Run(tt.target, func(t *testing.T) {
			path, query, ok := rawTarget(requestFor("GET", "host", tt.target))
			if ok == tt.refused || path != tt.path || query != tt.query {
				t.Errorf("got %q, %q, %v; want %q, %q, %v", path, query, ok, tt.path, tt.query, !tt.refused)
			}
		})
	}
}

func TestUpURI(t *testing.T) {
	for _, tt := range []struct {
		name, target string
		strip        int
		base, want   string
	}{
		{"as it came", "//a%2fb/./%63?x=1;y=%zz", 0, "", "//a%2fb/./%63?x=1;y=%zz"},
		{"behind the target's path", "/a?b", 0, "/base", "/base/a?b"},
		{"stripped", "/live/socket/x?y", 2, "", "/x?y"},
		{"stripped to nothing", "/live/socket", 2, "", "/"},
		{"stripped to the target's path", "/live/socket?y", 2, "/base", "/base?y"},
		{"stripped to a slash", "/live/socket/", 2, "/base", "/base/"},
		{"stripped to a query", "/live/socket?y", 2, "", "/?y"},
		{"repeated slashes", "//live///socket//x//", 2, "", "//x//"},
		{"encoded prefix", "/l%69ve/%73ocket/%78", 2, "", "/%78"},
		{"encoded slash in what is kept", "/live/a%2fb", 1, "", "/a%2fb"},
		{"empty query", "/live/x?", 1, "", "/x?"},
		{"nothing to strip", "/x", 0, "", "/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := behind(tt.base, upURI(requestFor("GET", "host", tt.target), tt.strip)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// backends are ways in which servers are known to read a path.
var backends = map[string]func(string) string{
	"as it is":             func(s string) string { return s },
	"decoded":              unescaped,
	"decoded and cleaned":  func(s string) string { return path.Clean(unescaped(s)) },
	"cleaned":              path.Clean,
	"cleaned and decoded":  func(s string) string { return unescaped(path.Clean(s)) },
	"backslashes":          func(s string) string { return path.Clean(strings.ReplaceAll(unescaped(s), `\`, "/")) },
	"bare, cleaned":        func(s string) string { return path.Clean(bare(s)) },
	"bare, decoded, clean": func(s string) string { return path.Clean(unescaped(bare(s))) },
	"decoded, bare, clean": func(s string) string { return path.Clean(bare(unescaped(s))) },
	"C string":             func(s string) string { s, _, _ = strings.Cut(unescaped(s), "\x00"); return path.Clean(s) },
	"fragment cut":         func(s string) string { s, _, _ = strings.Cut(s, "#"); return path.Clean(unescaped(s)) },
}

func unescaped(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// bare cuts path parameters off, as servlet containers do.
func bare(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// FuzzPath checks that a backend's reading of a path never belongs to a route
// whose pipeline the request has stepped past.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/", "/admin", "/admin/x", "//admin", "/public/../admin", "/public/..%2fadmin", "/%2e%2e/admin",
		"/admin%2fx", "/admin;x/y", "/x;/../admin", "/public/..;/admin", "/admin/", `/public\..\admin`,
		"/admin#x", "/admin%00", "/%61dmin", "/exact", "/exact/", "/exact;a", "/exact%2f", "/ex%61ct//",
		"http://h/admin", "/.;a/admin", "/a%3b%2fb", "/%", "/public/%252e%252e/admin",
	} {
		f.Add(s)
	}
	table, err := NewTable(guardedRoutes(), plug.Env{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if target == "" {
			return
		}
		e, _ := table.Match(requestFor("GET", "host", target))
		if e == nil {
			return
		}
		raw, _, _ := rawTarget(requestFor("GET", "host", target))
		for name, read := range backends {
			reading := strings.TrimRight(read(raw), "/")
			for _, guarded := range []string{"/admin", "/exact"} {
				below := strings.HasPrefix(reading, guarded+"/") && guarded == "/admin"
				if (reading == guarded || below) && len(e.Pipelines) == 0 {
					t.Errorf("%q went through no pipeline to a backend that reads it (%s) as %q", target, name, reading)
				}
			}
		}
		if up := e.UpURI(requestFor("GET", "host", target)); target[0] == '/' && up != target {
			t.Errorf("%q goes up as %q", target, up)
		}
	})
}

// guardedRoutes guards /admin with all below it, and /exact alone.
func guardedRoutes() *config.Config {
	return &config.Config{
		Pipelines: map[string][]config.Plug{"auth": {{Name: "origin", Config: &config.OriginPlug{"none"}}}},
		Routes: []config.Route{
			{Path: "/admin/*", PipeThrough: []string{"auth"}},
			{Path: "/exact", PipeThrough: []string{"auth"}},
			{Path: "/public/*"},
			{Path: "/*"},
		},
	}
}
