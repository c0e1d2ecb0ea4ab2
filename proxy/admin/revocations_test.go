package admin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// runMembers starts a proxy whose one route asks for a token in its query.
func runMembers(t *testing.T) (r *running, join func(sub, jti string) *websocket.Conn) {
	b := newBackend(t)
	r = run(t, fmt.Sprintf(`
pipelines:
  members:
    - jwt: {algorithms: [HS256], secret: %q, from: ["query:token"], id: "user:{sub}"}
routes: [{path: /*, upstream: app, pipe_through: [members]}]
upstreams: {app: {targets: [{url: %q, name: blue}]}}
`, tokentest.Secret, b.url), Options{})
	return r, func(sub, jti string) *websocket.Conn {
		t.Helper()
		c, _ := r.dial("/x?token=" + tokentest.HS256(t, tokentest.Claims{"sub": sub, "jti": jti}))
		return c
	}
}

// ended waits for the client's close frame and returns its code.
func ended(t *testing.T, c *websocket.Conn) websocket.StatusCode {
	t.Helper()
	_, _, err := c.Read(t.Context())
	return websocket.CloseStatus(err)
}

func TestRevocationAPI(t *testing.T) {
	r, join := runMembers(t)
	one, two, other := join("a/b", "1"), join("a/b", "2"), join("c", "3")
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	got := r.request("POST", "/api/revocations", fmt.Appendf(nil, `{"id":"user:a%%2Fb","until":%q}`, until.Format(time.RFC3339)))
	if got.status != http.StatusOK || strings.TrimSpace(string(got.body)) != `{"sessions":2}` {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	if a, b := ended(t, one), ended(t, two); a != 1008 || b != 1008 {
		t.Errorf("closed with %d and %d", a, b)
	}
	echoed(t, other, "still there")
	if got := r.request("POST", "/api/revocations", []byte(`{"jti":"9"}`)); got.status != http.StatusOK || strings.TrimSpace(string(got.body)) != `{"sessions":0}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
	want := fmt.Sprintf(`{"revocations":[{"jti":"9"},{"id":"user:a%%2Fb","until":%q}]}`, until.Format(time.RFC3339))
	if got := r.request("GET", "/api/revocations", nil); strings.TrimSpace(string(got.body)) != want {
		t.Errorf("got %s\nwant %s", got.body, want)
	}
	for _, tt := range []struct {
		body string
		want int
	}{{`{"jti":"9"}`, 204}, {`{"jti":"9"}`, 404}, {`{"id":"9"}`, 404}, {`{"id":"user:a%2Fb"}`, 204}} {
		if got := r.request("DELETE", "/api/revocations", []byte(tt.body)); got.status != tt.want {
			t.Errorf("DELETE %s: got %d %s", tt.body, got.status, got.body)
		}
	}
	if got := r.request("GET", "/api/revocations", nil); strings.TrimSpace(string(got.body)) != `{"revocations":[]}` {
		t.Errorf("got %s", got.body)
	}
	join("a/b", "4")
}

func TestBadRevocations(t *testing.T) {
	r, _ := runMembers(t)
	for _, body := range []string{
		``, `{}`, `[]`, `null`, `{"id":""}`, `{"id":"a","jti":"b"}`, `{"id":7}`, `{"id":"a"}{}`, `{"ID":"a","untill":1}`,
		`{"id":"a","until":"tomorrow"}`, `{"id":"a","until":"2001-01-01T00:00:00Z"}`, `{"id":"` + strings.Repeat("a", maxRevocation) + `"}`,
	} {
		got := r.request("POST", "/api/revocations", []byte(body))
		r.wantProblem(got, http.StatusBadRequest)
	}
	if n := len(r.proxy.Revocations()); n != 0 {
		t.Errorf("%d are in force", n)
	}
}

// An id that an auth plug gave is one that the other endpoints know.
func TestIDOfToken(t *testing.T) {
	r, join := runMembers(t)
	c := join("1", "x")
	if got := r.request("POST", "/api/ids/user:1/messages", []byte("hello"), "Content-Type: text/plain"); strings.TrimSpace(string(got.body)) != `{"sessions":1}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if _, text, err := c.Read(t.Context()); err != nil || string(text) != "hello" {
		t.Errorf("got %q, %v", text, err)
	}
	if got := r.request("DELETE", "/api/ids/user%3A1?code=4001", nil); strings.TrimSpace(string(got.body)) != `{"sessions":1}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if code := ended(t, c); code != 4001 {
		t.Errorf("closed with %d", code)
	}
}
