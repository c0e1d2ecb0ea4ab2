package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy"
)

// TestHeld looks at a session whose upstream has left for good.
func TestHeld(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ", continuity: {}"), Options{})
	c, s := r.dial("/")
	echoed(t, c, "hello")
	b.leave()
	r.eventually("the session is held", func() bool { return s.State() == proxy.HeldState })
	var listed page
	r.get("/api/sessions?state=held", &listed)
	if len(listed.Sessions) != 1 || listed.Sessions[0].HeldSeconds <= 0 || listed.Sessions[0].Restarts != 1 {
		t.Errorf("listed %+v", listed.Sessions)
	}
	m := scrape(r)
	if m[`stent_held_sessions{route="/*"}`] != 1 || m[`stent_sessions{route="/*",state="held"}`] != 1 || m[`stent_restarts_total{reason="lost",route="/*"}`] != 1 {
		for name, value := range m {
			if strings.Contains(name, "held") || strings.Contains(name, "restarts") {
				t.Errorf("%s is %v", name, value)
			}
		}
	}
	got := r.request("POST", "/api/sessions/"+s.Key()+"/messages?to=client", []byte("patience"), textPlain)
	if _, text, err := read(t, c); got.status != http.StatusOK || err != nil || string(text) != "patience" {
		t.Errorf("got %d %s; client got %q, %v", got.status, got.body, text, err)
	}
	got = r.request("POST", "/api/sessions/"+s.Key()+"/messages?to=upstream", []byte("later"), textPlain)
	if want := `{"result":"held"}` + "\n"; string(got.body) != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	if got := r.request("DELETE", "/api/sessions/"+s.Key(), nil); got.status != http.StatusNoContent {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if _, _, err := read(t, c); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("client got %v, want 1008", err)
	}
}

// TestConnecting looks at a session whose upstream does not answer, and ends
// it.
func TestConnecting(t *testing.T) {
	asked, release := make(chan struct{}, 8), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer slow.Close()
	defer close(release)
	r := run(t, oneRoute(strings.Replace(slow.URL, "http", "ws", 1), ""), Options{})
	dialled := make(chan error, 1)
	go func() {
		_, _, err := websocket.Dial(t.Context(), r.front+"/", nil)
		dialled <- err
	}()
	receive(t, asked)
	var listed page
	r.get("/api/sessions?state=connecting", &listed)
	if len(listed.Sessions) != 1 {
		t.Fatalf("listed %+v", listed)
	}
	path := "/api/sessions/" + listed.Sessions[0].Session
	// What is for the client waits for its 101; an upstream there is not.
	for to, result := range map[string]string{"client": "held", "upstream": "gone"} {
		got := r.request("POST", path+"/messages?to="+to, []byte("x"), textPlain)
		if want := `{"result":"` + result + `"}` + "\n"; string(got.body) != want {
			t.Errorf("push to the %s: got %d %s", to, got.status, got.body)
		}
	}
	if got := r.request("DELETE", path, nil); got.status != http.StatusNoContent {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if err := receive(t, dialled); err == nil {
		t.Error("the client was answered 101")
	}
	r.eventually("no session is left", func() bool { return len(r.proxy.Sessions()) == 0 })
}
