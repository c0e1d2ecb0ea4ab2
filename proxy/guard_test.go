package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// What an authorization service says goes up; what the client says in its
// name does not, however it is spelt.
func TestForwardAuthHeadersAreNotForged(t *testing.T) {
	var admit http.Header
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range admit {
			w.Header()[name] = values
		}
		for name := range r.Header {
			if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-user") {
				t.Errorf("the service was asked with %s", name)
			}
		}
	}))
	t.Cleanup(auth.Close)
	forged := []string{"X-User: evil", "x-user: evil", "X_USER: evil", "X_User: evil", "x-User_Role: evil", "X-User-Role: evil"}
	for name, admit1 := range map[string]http.Header{"set": {"X-User": {"alice"}}, "left out": {}} {
		t.Run(name, func(t *testing.T) {
			admit = admit1
			s := newStage(t, "pipe_through: [auth]", "pipelines: {auth: [{forward_auth: {url: \""+auth.URL+"\", headers: [Cookie, X-User-Role], set: [X-User, X-User-Id]}}, {headers: {request: {set: {X-User-Role: \"\"}}}}]}", nil)
			c := s.dial()
			c.say(handshake("/", forged...))
			up := s.accept()
			for name, values := range up.request.Header {
				if strings.Contains(strings.Join(values, " "), "evil") {
					t.Errorf("%s is %q", name, values)
				}
			}
			if got := up.request.Header.Get("X-User"); got != admit1.Get("X-User") {
				t.Errorf("X-User is %q", got)
			}
		})
	}
}

// Where a plug names a field with "_" or with "-", no spelling of it comes from
// a client: a backend may not tell them apart.
func TestUnderscoresForgeNothing(t *testing.T) {
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["X_Who"] = []string{"alice"} }))
	t.Cleanup(auth.Close)
	plugs := fmt.Sprintf(`endpoint: [{request_id: {header: X-Correlation-Id}}]
pipelines:
  p:
    - jwt: {secret: %q, algorithms: [HS256], from: ["query:token"], headers: {X_Role: role}}
    - forward_auth: {url: %q, set: [X_Who]}
    - headers: {request: {set: {X_Tenant: acme}, remove: [X-Debug]}}`, tokentest.Secret, auth.URL)
	var forged []string
	for _, name := range []string{"X_Role", "X_Who", "X_Tenant", "X_Debug", "X_Correlation_Id"} {
		dashes := strings.ReplaceAll(name, "_", "-")
		forged = append(forged, name+": evil", strings.ToLower(name)+": evil", dashes+": evil", strings.Replace(name, "_", "-", 1)+": evil")
	}
	s := newStage(t, "pipe_through: [p]", plugs, nil)
	c := s.dial()
	c.say(handshake("/?token="+tokentest.HS256(t, tokentest.Claims{"role": "member"}), forged...))
	up := s.accept().request.Header
	for name, values := range up {
		if strings.Contains(strings.Join(values, " "), "evil") {
			t.Errorf("%s is %q", name, values)
		}
	}
	for name, want := range map[string]string{"X_role": "member", "X_who": "alice", "X_tenant": "acme"} {
		if got := up.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if up.Get("X-Correlation-Id") == "" {
		t.Error("no request id goes up")
	}
}

// A refusal of the service is what the client gets, on a handshake too.
func TestForwardAuthRefusesHandshake(t *testing.T) {
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", "Custom")
		w.WriteHeader(401)
		w.Write([]byte("who are you?"))
	}))
	t.Cleanup(auth.Close)
	s := newStage(t, "pipe_through: [auth]", "pipelines: {auth: [{forward_auth: {url: \""+auth.URL+"\"}}]}", nil)
	c := s.dial()
	c.say(handshake("/"))
	resp := c.status()
	body := make([]byte, 100)
	n, _ := resp.Body.Read(body)
	if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != "Custom" || string(body[:n]) != "who are you?" {
		t.Errorf("got %s %v %q", resp.Status, resp.Header, body[:n])
	}
}

// The address that ip judges is the one that no client can choose.
func TestIPBehindProxies(t *testing.T) {
	for _, tt := range []struct {
		name, trusted string
		header        []string
		want          int
	}{
		{"spoofed, nobody is trusted", "", []string{"X-Forwarded-For: 10.0.0.1"}, 403},
		{"spoofed by other means", "", []string{"X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1"}, 403},
		{"from a proxy", "127.0.0.1", []string{"X-Forwarded-For: 10.0.0.1"}, 101},
		{"from a proxy in mapped form", `"::ffff:127.0.0.0/104"`, []string{"X-Forwarded-For: ::ffff:10.0.0.1"}, 101},
		{"spoofed through a proxy", "127.0.0.1", []string{"X-Forwarded-For: 10.0.0.1, 11.0.0.1"}, 403},
		{"spoofed on a line of its own", "127.0.0.1", []string{"X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 11.0.0.1"}, 403},
		{"garbage behind it", "127.0.0.1", []string{"X-Forwarded-For: 10.0.0.1, garbage"}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := prepare(t)
			s.listeners = "listeners: [{address: \"127.0.0.1:0\", trusted_proxies: [" + tt.trusted + "]}]\n"
			s.run(s.yaml("pipe_through: [office]", "pipelines: {office: [{ip: {allow: [10.0.0.0/8]}}]}"), nil)
			s.listeners = "" // dial would speak TLS
			c := s.dial()
			c.say(handshake("/", tt.header...))
			if tt.want == 101 {
				up := s.accept()
				up.say(up.switching())
			}
			if resp := c.status(); resp.StatusCode != tt.want {
				t.Errorf("got %s, want %d", resp.Status, tt.want)
			}
		})
	}
}

// A page gives the browser what it needs to open a socket.
func TestCSRFOverPageAndSocket(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "own=1")
		w.Write([]byte("page"))
	}))
	t.Cleanup(backend.Close)
	s := prepare(t)
	s.run(`
pipelines:
  pages: [{session: {secret: "0123456789abcdef0123456789abcdef", id: "visitor:{session}"}}]
  sockets: [csrf]
pipe_through: [pages]
routes:
  - {path: /socket, upstream: app, pipe_through: [sockets], keepalive: {interval: 0s}}
  - {path: /*, upstream: pages, http: true}
upstreams: {app: {targets: ["ws://`+s.targets.Addr().String()+`"]}, pages: {targets: ["`+backend.URL+`"]}}
`, nil)
	resp, err := http.Get("http://" + s.proxy.Addrs()[0].String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cookies := make(map[string]string)
	for _, c := range resp.Cookies() {
		cookies[c.Name] = c.Value
	}
	if cookies["own"] != "1" || cookies["_stent_session"] == "" || cookies["_csrf_token"] != "" {
		t.Fatalf("the page sets %v", resp.Cookies())
	}
	// The page's own route has no csrf plug: the first refusal gives the token.
	c := s.dial()
	c.say(handshake("/socket", "Cookie: _stent_session="+cookies["_stent_session"]))
	refused := c.status()
	if refused.StatusCode != 403 {
		t.Fatalf("without a token got %s", refused.Status)
	}
	var token string
	for _, c := range refused.Cookies() {
		if c.Name == "_csrf_token" {
			token = c.Value
		}
	}
	c = s.dial()
	c.say(handshake("/socket?_csrf_token="+token, "Cookie: _stent_session="+cookies["_stent_session"]))
	up := s.accept()
	up.say(up.switching("Set-Cookie: own=2"))
	open := c.status()
	if open.StatusCode != 101 || strings.Join(open.Header["Set-Cookie"][:1], "") != "own=2" {
		t.Errorf("with the token got %s %v", open.Status, open.Header)
	}
	if id := s.session().ID(); !strings.HasPrefix(id, "visitor:"+strings.Split(cookies["_stent_session"], ".")[0]) {
		t.Errorf("id %q is not that of %q", id, cookies["_stent_session"])
	}
}
