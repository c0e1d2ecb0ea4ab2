package plug

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// compile compiles one plug or ends the test.
func compile(t *testing.T, name string, c any, env Env) Compiled {
	t.Helper()
	p, err := Compile(config.Plug{Name: name, Config: c}, env)
	if err != nil {
		t.Fatalf("compile %s: %v", name, err)
	}
	return p
}

// ok answers 200 and remembers the request it saw.
func ok(seen **http.Request) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			*seen = r
		}
		w.WriteHeader(http.StatusOK)
	})
}

// request makes a request with an Info; header is name, value, name, value.
func request(method, target string, header ...string) (*http.Request, *Info) {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	info := &Info{ClientIP: netip.MustParseAddr("192.0.2.1"), Scheme: "http", Host: r.Host}
	return With(r, info), info
}

func status(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestCompileErrorsCarryTheKey(t *testing.T) {
	for _, tt := range []struct {
		name string
		plug config.Plug
		env  Env
		path string
	}{
		{"limit of nothing", config.Plug{Name: "limit", Config: &config.LimitPlug{By: "ip"}}, Env{}, "[1].limit.sessions"},
		{"limit by nothing known", config.Plug{Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "cookie"}}, Env{}, "[1].limit.by"},
		{"limit by no field", config.Plug{Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "header:"}}, Env{}, "[1].limit.by"},
		{"limit by route before routing", config.Plug{Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "route"}}, Env{}, "[1].limit.by"},
		{"origin with a path", config.Plug{Name: "origin", Config: &config.OriginPlug{"none", "https://a/b"}}, Env{}, "[1].origin[1]"},
		{"origin with an inner star", config.Plug{Name: "origin", Config: &config.OriginPlug{"https://a.*.b"}}, Env{}, "[1].origin[0]"},
		{"format", config.Plug{Name: "accepts", Config: &config.AcceptsPlug{"html", "pdf"}}, Env{}, "[1].accepts[1]"},
		{"no format", config.Plug{Name: "accepts", Config: &config.AcceptsPlug{}}, Env{}, "[1].accepts"},
		{"logger level", config.Plug{Name: "logger", Config: &config.LoggerPlug{Level: "loud"}}, Env{}, "[1].logger.level"},
		{"field name", config.Plug{Name: "headers", Config: &config.HeadersPlug{Request: config.HeaderChange{Set: map[string]string{"a b": "c"}}}}, Env{}, "[1].headers.request.set.a b"},
		{"field of the connection", config.Plug{Name: "headers", Config: &config.HeadersPlug{Response: config.HeaderChange{Remove: []string{"upgrade"}}}}, Env{}, "[1].headers.response.remove[0]"},
		{"field of the handshake", config.Plug{Name: "headers", Config: &config.HeadersPlug{Request: config.HeaderChange{Set: map[string]string{"Sec-WebSocket-Protocol": "a"}}}}, Env{}, "[1].headers.request.set.Sec-WebSocket-Protocol"},
		{"line in a value", config.Plug{Name: "secure_headers", Config: &config.SecureHeadersPlug{Set: map[string]string{"X-A": "b\r\nX-C: d"}}}, Env{}, "[1].secure_headers.set.X-A"},
		{"request id header", config.Plug{Name: "request_id", Config: &config.RequestIDPlug{Header: "a:b"}}, Env{}, "[1].request_id.header"},
		{"token place", config.Plug{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.From = []string{"query:a", "body"} })}, Env{}, "[1].jwt.from[1]"},
		{"no token place", config.Plug{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.From = nil })}, Env{}, "[1].jwt.from"},
		{"token id", config.Plug{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.ID = "{" })}, Env{}, "[1].jwt.id"},
		{"token algorithm", config.Plug{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.Algorithms = []string{"none"} })}, Env{}, "[1].jwt.algorithms[0]"},
		{"claim in a header of stent's", config.Plug{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.Headers = map[string]string{"Stent-User": "sub"} })}, Env{}, "[1].jwt.headers.Stent-User"},
		{"unknown", config.Plug{Name: "hed"}, Env{}, "[1]"},
		{"another plug's configuration", config.Plug{Name: "head", Config: &config.LimitPlug{}}, Env{}, "[1].head"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := CompilePipeline([]config.Plug{{Name: "head"}, tt.plug}, tt.env)
			key, ok := errors.AsType[*config.KeyError](err)
			if !ok {
				t.Fatalf("error %v, want a KeyError", err)
			}
			if key.Path != tt.path {
				t.Errorf("path %q, want %q", key.Path, tt.path)
			}
		})
	}
}

func TestPipelineRunsInOrder(t *testing.T) {
	p, err := CompilePipeline([]config.Plug{
		{Name: "head"},
		{Name: "headers", Config: &config.HeadersPlug{Request: config.HeaderChange{Set: map[string]string{"X-Tier": "one", "X-Kept": "kept"}}}},
		{Name: "headers", Config: &config.HeadersPlug{Request: config.HeaderChange{Set: map[string]string{"X-Tier": "two"}}}},
	}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(p.Names(), " "), "head headers headers"; got != want {
		t.Errorf("names %q, want %q", got, want)
	}
	if got, want := strings.Join(p.Sets(), " "), "X-Kept X-Tier X-Tier"; got != want {
		t.Errorf("sets %q, want %q", got, want)
	}
	r, info := request("HEAD", "/")
	var seen *http.Request
	status(p.Wrap(ok(&seen)), r)
	if seen == nil || seen.Method != "GET" {
		t.Errorf("handler saw %v, want a GET", seen)
	}
	h := http.Header{}
	info.ApplyRequest(h)
	if h.Get("X-Tier") != "two" || h.Get("X-Kept") != "kept" {
		t.Errorf("sent up %v, want the later plug's value", h)
	}
}

func TestInfoEndsOnce(t *testing.T) {
	var info Info
	var order string
	info.OnEnd(func() { order += "a" })
	info.OnEnd(func() { order += "b" })
	info.Take()
	if !info.Taken() {
		t.Error("not taken")
	}
	info.End()
	info.End()
	if order != "ba" {
		t.Errorf("hooks ran as %q, want ba", order)
	}
	info.OnEnd(func() { order += "c" })
	if order != "bac" {
		t.Errorf("hook after the end: %q, want it run at once", order)
	}
}

func TestRequestID(t *testing.T) {
	for _, tt := range []struct {
		name, sent string
		trusted    bool
		kept       bool
	}{
		{name: "none sent"},
		{name: "from anybody", sent: "abc"},
		{name: "from a proxy", sent: "abc-1", trusted: true, kept: true},
		{name: "from a proxy, with a blank", sent: "a b", trusted: true},
		{name: "from a proxy, not ASCII", sent: "caf\xc3\xa9", trusted: true},
		{name: "from a proxy, too long", sent: strings.Repeat("a", maxRequestID+1), trusted: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := compile(t, "request_id", &config.RequestIDPlug{}, Env{}).Wrap(ok(nil))
			r, info := request("GET", "/")
			if tt.sent != "" {
				r.Header.Set("X-Request-Id", tt.sent)
			}
			info.Trusted = tt.trusted
			status(h, r)
			if kept := info.RequestID == tt.sent; kept != tt.kept {
				t.Errorf("id %q for %q, kept %v, want %v", info.RequestID, tt.sent, kept, tt.kept)
			}
			if len(info.RequestID) < 5 {
				t.Errorf("id %q is no id", info.RequestID)
			}
			up, down := http.Header{}, http.Header{}
			info.ApplyRequest(up)
			info.ApplyResponse(down)
			if got := up.Get("X-Request-Id"); got != info.RequestID {
				t.Errorf("sent up %q, want %q", got, info.RequestID)
			}
			if got := down.Get("X-Request-Id"); got != info.RequestID {
				t.Errorf("sent back %q, want %q", got, info.RequestID)
			}
		})
	}
}

func TestAccepts(t *testing.T) {
	for _, tt := range []struct {
		formats config.AcceptsPlug
		accept  []string
		want    int
	}{
		{config.AcceptsPlug{"html"}, nil, 200},
		{config.AcceptsPlug{"html"}, []string{""}, 200},
		{config.AcceptsPlug{"html"}, []string{"*/*"}, 200},
		{config.AcceptsPlug{"html"}, []string{"text/html"}, 200},
		{config.AcceptsPlug{"html"}, []string{"TEXT/HTML ; charset=utf-8"}, 200},
		{config.AcceptsPlug{"html"}, []string{"application/xhtml+xml,application/xml;q=0.9"}, 200},
		{config.AcceptsPlug{"html"}, []string{"text/*;q=0.1"}, 200},
		{config.AcceptsPlug{"html"}, []string{"application/json"}, 406},
		{config.AcceptsPlug{"html", "json"}, []string{"application/json"}, 200},
		{config.AcceptsPlug{"html"}, []string{"image/*", "text/html"}, 200},
		{config.AcceptsPlug{"html"}, []string{"text/html;q=0, application/xhtml+xml;q=0, */*"}, 406},
		{config.AcceptsPlug{"text"}, []string{"text/plain;q=0, text/*"}, 406},
		{config.AcceptsPlug{"text"}, []string{"text/*;q=0, text/plain;q=0.5"}, 200},
		{config.AcceptsPlug{"text"}, []string{"*/plain"}, 200}, // no range at all: as if there were no field
		{config.AcceptsPlug{"image/png"}, []string{"image/png"}, 200},
		{config.AcceptsPlug{"image/png"}, []string{"image/svg+xml"}, 406},
	} {
		t.Run(strings.Join(tt.formats, " ")+" for "+strings.Join(tt.accept, " and "), func(t *testing.T) {
			r, _ := request("GET", "/")
			r.Header["Accept"] = tt.accept
			formats := tt.formats
			if got := status(compile(t, "accepts", &formats, Env{}).Wrap(ok(nil)), r).Code; got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		rule   config.OriginPlug
		origin []string
		want   int
	}{
		{config.OriginPlug{"https://example.com"}, []string{"https://example.com"}, 200},
		{config.OriginPlug{"https://example.com"}, []string{"https://EXAMPLE.com:443"}, 200},
		{config.OriginPlug{"https://example.com"}, []string{"http://example.com"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://example.com:8443"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://example.com.evil.org"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://evil-example.com"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://example.com/"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://x@example.com"}, 403},
		{config.OriginPlug{"https://example.com"}, nil, 403},
		{config.OriginPlug{"https://example.com", "none"}, nil, 200},
		{config.OriginPlug{"https://example.com"}, []string{"null"}, 403},
		{config.OriginPlug{"https://example.com"}, []string{""}, 403},
		{config.OriginPlug{"none"}, []string{""}, 403},
		{config.OriginPlug{"https://example.com"}, []string{"https://example.com", "https://evil.org"}, 403},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://a.example.com"}, 200},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://a.b.example.com"}, 200},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://example.com"}, 403},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://.example.com"}, 403},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://evilexample.com"}, 403},
		{config.OriginPlug{"https://*.example.com"}, []string{"https://*.example.com"}, 403},
		{config.OriginPlug{"http://[::1]:4000"}, []string{"http://[::1]:4000"}, 200},
		{config.OriginPlug{"//example.com"}, []string{"https://example.com"}, 200},
		{config.OriginPlug{"//example.com"}, []string{"http://example.com:81"}, 403},
		{config.OriginPlug{"same"}, []string{"http://proxy.test"}, 200},
		{config.OriginPlug{"same"}, []string{"https://proxy.test"}, 200},
		{config.OriginPlug{"same"}, []string{"http://proxy.test:81"}, 403},
		{config.OriginPlug{"same"}, []string{"http://other.test"}, 403},
		{config.OriginPlug{"*"}, []string{"null"}, 200},
		{config.OriginPlug{"*"}, nil, 200},
		{config.OriginPlug{}, nil, 403},
	} {
		t.Run(strings.Join(tt.rule, " ")+" for "+strings.Join(tt.origin, " and "), func(t *testing.T) {
			r, _ := request("GET", "http://proxy.test/")
			if tt.origin != nil {
				r.Header["Origin"] = tt.origin
			}
			rule := tt.rule
			if got := status(compile(t, "origin", &rule, Env{}).Wrap(ok(nil)), r).Code; got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

func TestSecureHeadersFillIn(t *testing.T) {
	p := compile(t, "secure_headers", &config.SecureHeadersPlug{Set: map[string]string{
		"x-frame-options": "",
		"referrer-policy": "no-referrer",
		"X-New":           "1",
	}}, Env{})
	r, info := request("GET", "/")
	status(p.Wrap(ok(nil)), r)
	h := http.Header{"Content-Security-Policy": {"default-src 'none'"}}
	info.ApplyResponse(h)
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", // the backend's own
		"X-Frame-Options":         "",
		"Referrer-Policy":         "no-referrer",
		"X-New":                   "1",
		"X-Content-Type-Options":  "nosniff",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestHeadersBothWays(t *testing.T) {
	p := compile(t, "headers", &config.HeadersPlug{
		Request:  config.HeaderChange{Set: map[string]string{"x-tenant": "acme"}, Remove: []string{"cookie", "x-debug", "X_Level"}},
		Response: config.HeaderChange{Set: map[string]string{"server": "stent"}, Remove: []string{"x-powered-by"}},
	}, Env{})
	r, info := request("GET", "/")
	status(p.Wrap(ok(nil)), r)
	up := http.Header{"Cookie": {"a=b"}, "X-Debug": {"1"}, "X_debug": {"1"}, "X-Level": {"1"}, "X_Level": {"1"}, "X-Tenant": {"x", "y"}, "Accept": {"*/*"}}
	info.ApplyRequest(up)
	if len(up) != 2 || len(up["X-Tenant"]) != 1 || up.Get("X-Tenant") != "acme" {
		t.Errorf("sent up %v", up)
	}
	down := http.Header{"X-Powered-By": {"php"}, "Server": {"apache"}}
	info.ApplyResponse(down)
	if len(down) != 1 || down.Get("Server") != "stent" {
		t.Errorf("sent back %v", down)
	}
}

func TestLogger(t *testing.T) {
	for _, tt := range []struct {
		name    string
		level   string
		handler http.HandlerFunc
		lines   int
		status  int64
	}{
		{name: "an answer", level: "info", lines: 1, status: 404, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}},
		{name: "nothing written", lines: 1, status: 200, handler: func(http.ResponseWriter, *http.Request) {}},
		{name: "a panic", lines: 1, status: 0, handler: func(http.ResponseWriter, *http.Request) { panic("no") }},
		{name: "below the level", level: "debug", handler: func(http.ResponseWriter, *http.Request) {}},
		{name: "off", level: "off", handler: func(http.ResponseWriter, *http.Request) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			core, logs := observer.New(zapcore.InfoLevel)
			h := compile(t, "logger", &config.LoggerPlug{Level: tt.level}, Env{Log: zap.New(core)}).Wrap(tt.handler)
			r, _ := request("GET", "/path?token=secret")
			func() {
				defer func() { _ = recover() }()
				status(h, r)
			}()
			entries := logs.All()
			if len(entries) != tt.lines {
				t.Fatalf("%d lines, want %d", len(entries), tt.lines)
			}
			if tt.lines == 0 {
				return
			}
			fields := entries[0].ContextMap()
			if fields["status"] != tt.status || fields["path"] != "/path" {
				t.Errorf("logged %v, want status %d", fields, tt.status)
			}
			for name, value := range fields {
				if s, ok := value.(string); ok && strings.Contains(s, "secret") {
					t.Errorf("%s holds the query: %q", name, s)
				}
			}
		})
	}
}

func TestProblem(t *testing.T) {
	r, info := request("GET", "/")
	info.RequestID = "id-1"
	info.EditResponse(func(h http.Header) { h.Set("X-Edited", "yes") })
	p := (&Problem{Status: 429, Detail: `a "detail"`, Close: true}).Set("retry-after", "5")
	w := status(p, r)
	want := `{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"a \"detail\"","request_id":"id-1"}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("body %s, want %s", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json",
		"Connection":   "close",
		"Retry-After":  "5",
		"X-Edited":     "yes",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	r.Method = "HEAD"
	if w := status(p, r); w.Body.Len() != 0 || w.Code != 429 {
		t.Errorf("HEAD got %d and %d bytes of body", w.Code, w.Body.Len())
	}
}

// HSTS is for https alone (RFC 6797 section 7.2).
func TestSecureHeadersTransportSecurity(t *testing.T) {
	for _, tt := range []struct {
		name, scheme string
		set          map[string]string
		want         string
	}{
		{"https", "https", nil, "max-age=31536000"},
		{"http", "http", nil, ""},
		{"own", "https", map[string]string{"strict-transport-security": "max-age=60"}, "max-age=60"},
		{"own over http", "http", map[string]string{"strict-transport-security": "max-age=60"}, ""},
		{"removed", "https", map[string]string{"Strict-Transport-Security": ""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, "secure_headers", &config.SecureHeadersPlug{Set: tt.set}, Env{})
			r, info := request("GET", "/")
			info.Scheme = tt.scheme
			status(p.Wrap(ok(nil)), r)
			h := http.Header{}
			info.ApplyResponse(h)
			if got := h.Get("Strict-Transport-Security"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("the other headers are missing")
			}
		})
	}
}
