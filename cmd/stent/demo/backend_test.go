package demo

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a backend until the test ends and returns it.
func start(t *testing.T) *Backend {
	t.Helper()
	b, err := NewBackend("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.Pause = 10 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return b
}

func dial(t *testing.T, url string, header http.Header) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// until reads messages until one has this op.
func until(t *testing.T, conn *websocket.Conn, op string) said {
	t.Helper()
	for {
		_, data, err := conn.Read(t.Context())
		if err != nil {
			t.Fatalf("wait for %s: %v", op, err)
		}
		var s said
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		if s.Op == op {
			return s
		}
	}
}

func say(t *testing.T, conn *websocket.Conn, message string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

func TestRoomTellsEverybody(t *testing.T) {
	url := "ws://" + start(t).Address() + "/room"
	a := dial(t, url, http.Header{"Stent-Session": {"s-1"}, "Stent-Attempt": {"2"}})
	if got := until(t, a, "welcome"); got.Session != "s-1" || got.Attempt != "2" {
		t.Errorf("welcome: got %+v", got)
	}
	b := dial(t, url, nil)
	until(t, b, "welcome")
	for until(t, a, "people").People != 2 {
	}
	say(t, a, `{"op":"say","name":"a","text":"hello"}`)
	for name, conn := range map[string]*websocket.Conn{"a": a, "b": b} {
		if got := until(t, conn, "said"); got.Name != "a" || got.Text != "hello" {
			t.Errorf("%s heard %+v", name, got)
		}
	}
	say(t, a, `{"op":"ping","at":1.5}`)
	if got := until(t, a, "pong"); got.At != 1.5 {
		t.Errorf("pong: got %+v", got)
	}
	if err := b.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	if got := until(t, a, "people").People; got != 1 {
		t.Errorf("people after one left: got %d, want 1", got)
	}
}

func TestRoomRefusesWhatIsNoJSON(t *testing.T) {
	conn := dial(t, "ws://"+start(t).Address()+"/room", nil)
	say(t, conn, "hello")
	for {
		_, _, err := conn.Read(t.Context())
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != websocket.StatusUnsupportedData {
			t.Errorf("got %v, want close 1003", err)
		}
		return
	}
}

func TestEcho(t *testing.T) {
	conn := dial(t, "ws://"+start(t).Address()+"/echo", nil)
	conn.SetReadLimit(-1)
	for _, want := range []string{"", "hello", strings.Repeat("ü", 1<<19)} {
		say(t, conn, want)
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != want {
			t.Fatalf("%d bytes: got %d bytes, %v", len(want), len(got), err)
		}
	}
}

func TestKill(t *testing.T) {
	b := start(t)
	conn := dial(t, "ws://"+b.Address()+"/room", nil)
	until(t, conn, "people")
	b.Kill()
	for {
		_, _, err := conn.Read(t.Context())
		if err == nil {
			continue
		}
		if websocket.CloseStatus(err) != -1 {
			t.Errorf("a crash says no goodbye, got %v", err)
		}
		break
	}
	// It comes back by itself, at the same address.
	for {
		again, _, err := websocket.Dial(t.Context(), "ws://"+b.Address()+"/room", nil)
		if err == nil {
			again.CloseNow()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestPage(t *testing.T) {
	resp, err := http.Get("http://" + start(t).Address() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/html") {
		t.Errorf("got %d %q", resp.StatusCode, got)
	}
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy: got %q", policy)
	}
	http.DefaultClient.CloseIdleConnections()
}
