package admin

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

func TestGuard(t *testing.T) {
	const token = "Authorization: Bearer s3cret"
	b := newBackend(t)
	start := func(admin string) *running {
		return run(t, "admin: {address: \"127.0.0.1:0\""+admin+"}\n"+oneRoute(b.url, ""), Options{})
	}
	plain, guarded, public := start(""), start(", token: s3cret"), start(", token: s3cret, metrics_public: true")
	for _, tt := range []struct {
		name, path string
		fields     []string
		plain      int // without a token in the configuration
		guarded    int // with one
		public     int // with one, and metrics_public
	}{
		{"bare", "/api/sessions", nil, 200, 401, 401},
		{"token", "/api/sessions", []string{token}, 200, 200, 200},
		{"lower-case scheme", "/api/sessions", []string{"Authorization: bearer s3cret"}, 200, 200, 200},
		{"wrong token", "/api/sessions", []string{"Authorization: Bearer s3cre"}, 200, 401, 401},
		{"longer token", "/api/sessions", []string{"Authorization: Bearer s3cretx"}, 200, 401, 401},
		{"empty token", "/api/sessions", []string{"Authorization: Bearer "}, 200, 401, 401},
		{"basic", "/api/sessions", []string{"Authorization: Basic s3cret"}, 200, 401, 401},
		{"no scheme", "/api/sessions", []string{"Authorization: s3cret"}, 200, 401, 401},
		{"token in the query", "/api/sessions?token=s3cret", nil, 200, 401, 401},
		{"index", "/", nil, 200, 401, 401},
		{"metrics", "/metrics", nil, 200, 401, 200},
		{"metrics with token", "/metrics", []string{token}, 200, 200, 200},
		{"healthz", "/healthz", nil, 200, 200, 200},
		{"readyz", "/readyz", nil, 200, 200, 200},
		{"what does not exist", "/api/nothing", nil, 404, 401, 401},
		{"a path that begins like an open one", "/healthz/../api/sessions", nil, 200, 401, 401},
		{"more slashes than one", "//api/sessions", nil, 200, 401, 401},

		{"localhost", "/api/sessions", []string{token, "Host: localhost:4001"}, 200, 200, 200},
		{"another loopback address", "/api/sessions", []string{token, "Host: 127.1.2.3"}, 200, 200, 200},
		{"loopback of IPv6", "/api/sessions", []string{token, "Host: [::1]:4001"}, 200, 200, 200},
		{"foreign host", "/api/sessions", []string{token, "Host: evil.example"}, 403, 403, 403},
		{"foreign host without token", "/api/sessions", []string{"Host: evil.example:4001"}, 403, 403, 403},
		{"foreign host, open path", "/healthz", []string{"Host: evil.example"}, 403, 403, 403},
		{"foreign host, metrics", "/metrics", []string{"Host: evil.example"}, 403, 403, 403},
		{"host that begins well", "/api/sessions", []string{token, "Host: localhost.evil.example"}, 403, 403, 403},
		{"host that ends well", "/api/sessions", []string{token, "Host: evil.localhost"}, 403, 403, 403},
		{"another address", "/api/sessions", []string{token, "Host: 192.0.2.1"}, 403, 403, 403},

		{"foreign origin", "/api/sessions", []string{token, "Origin: https://evil.example"}, 403, 403, 403},
		{"null origin", "/api/sessions", []string{token, "Origin: null"}, 403, 403, 403},
		{"origin of another port", "/api/sessions", []string{token, "Host: localhost:4001", "Origin: http://localhost:3000"}, 403, 403, 403},
		{"origin of a file", "/api/sessions", []string{token, "Host: localhost", "Origin: file://localhost"}, 403, 403, 403},
		{"own origin", "/api/sessions", []string{token, "Host: localhost:4001", "Origin: http://localhost:4001"}, 200, 200, 200},
		{"own origin and another", "/api/sessions", []string{token, "Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"}, 403, 403, 403},
		{"foreign origin, open path", "/readyz", []string{"Origin: https://evil.example"}, 403, 403, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				name string
				running
				want int
			}{{"plain", *plain, tt.plain}, {"guarded", *guarded, tt.guarded}, {"public", *public, tt.public}} {
				r, want := c.running, c.want
				r.t = t
				got := r.request("GET", tt.path, nil, tt.fields...)
				if got.status != want {
					t.Errorf("%s: got %d %s, want %d", c.name, got.status, got.body, want)
				}
				if want >= 400 {
					r.wantProblem(got, want)
				}
				if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (want == 401) {
					t.Errorf("%s: WWW-Authenticate %q at %d", c.name, challenge, got.status)
				}
			}
		})
	}
}

func noToken() config.Admin { return config.Admin{} }

func TestGuardOwnHost(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 4001}
	for _, tt := range []struct {
		name, network, address, host string
		want                         bool
	}{
		{"the address itself", "tcp", "10.0.0.5:4001", "10.0.0.5:4001", true},
		{"without its port", "tcp", "10.0.0.5:4001", "10.0.0.5", true},
		{"another address", "tcp", "10.0.0.5:4001", "10.0.0.6:4001", false},
		{"the name", "tcp", "stent.internal:4001", "stent.internal:4001", true},
		{"the name in capitals", "tcp", "stent.internal:4001", "STENT.internal", true},
		{"the name's address", "tcp", "stent.internal:4001", "10.0.0.5:4001", true},
		{"another name", "tcp", "stent.internal:4001", "internal:4001", false},
		{"every address, that of the connection", "tcp", ":4001", "10.0.0.5:4001", true},
		{"every address, a mapped one", "tcp", "0.0.0.0:4001", "192.0.2.7:8080", true},
		{"every address of IPv6", "tcp", "[::]:4001", "[2001:db8::1]:4001", true},
		{"every address, a name", "tcp", ":4001", "evil.example", false},
		{"no host", "tcp", ":4001", "", false},
		{"nonsense", "tcp", ":4001", "[::1", true}, // brackets don't matter: it is an address
		{"more nonsense", "tcp", ":4001", "a:b:c", false},
		{"unix", "unix", "/run/stent.sock", "whatever", true},
		{"mapped loopback", "tcp", "127.0.0.1:4001", "[::ffff:127.0.0.1]:4001", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuard(tt.network, tt.address, noToken, zap.NewNop())
			r := httptest.NewRequest("GET", "/", nil)
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
			r.Host = tt.host
			if got := g.ownHost(r); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Other machines call a listener at every address by a name that it can't
// know: there the token says enough.
func TestGuardAtEveryAddress(t *testing.T) {
	ok := func(http.ResponseWriter, *http.Request) *plug.Problem { return nil }
	mux := http.NewServeMux()
	mux.Handle("/closed", get(ok))
	mux.Handle("/open", open(ok))
	for _, tt := range []struct {
		address, token, path, given string
		want                        int
	}{
		{":4001", "s3cret", "/closed", "s3cret", 200},
		{":4001", "s3cret", "/closed", "secret", 403},
		{":4001", "s3cret", "/closed", "", 403},
		{":4001", "s3cret", "/open", "", 200},
		{":4001", "", "/closed", "", 403},
		{":4001", "", "/open", "", 403},
		{"10.0.0.5:4001", "s3cret", "/closed", "s3cret", 403},
		{"10.0.0.5:4001", "s3cret", "/open", "", 403},
	} {
		terms := func() config.Admin { return config.Admin{Token: config.NewSecret(tt.token)} }
		r := httptest.NewRequest("GET", tt.path, nil)
		r.Host = "stent.internal:4001"
		if tt.given != "" {
			r.Header.Set("Authorization", "Bearer "+tt.given)
		}
		w := httptest.NewRecorder()
		newGuard("tcp", tt.address, terms, zap.NewNop()).wrap(mux).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%+v: got %d", tt, w.Code)
		}
	}
}

func TestGuardPanic(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/early", func(http.ResponseWriter, *http.Request) { panic("oops") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		panic("oops")
	})
	h := newGuard("tcp", "127.0.0.1:4001", noToken, zap.NewNop()).wrap(mux)
	get := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := get("/early"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), `"request_id"`) {
		t.Errorf("early: got %d %s", w.Code, w.Body)
	}
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("late: recovered %v, want %v", v, http.ErrAbortHandler)
		}
	}()
	get("/late")
}
