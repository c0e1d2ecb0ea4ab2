package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

const (
	textPlain   = "Content-Type: text/plain"
	octetStream = "Content-Type: application/octet-stream"
)

func TestPush(t *testing.T) {
	b := newBackend(t)
	for _, mode := range []struct{ name, more string }{{"relay", ""}, {"message", ", handlers: [pass]"}} {
		r := run(t, oneRoute(b.url, mode.more), Options{})
		c, s := r.dial("/")
		// A large message is not taken before it is read, so the answer is
		// waited for last.
		push := func(to, body, field string) <-chan reply {
			pushed := make(chan reply, 1)
			go func() {
				pushed <- r.ask("POST", "/api/sessions/"+s.Key()+"/messages?to="+to, []byte(body), field)
			}()
			return pushed
		}
		written := func(t *testing.T, got reply) {
			t.Helper()
			if want := `{"result":"written"}` + "\n"; got.err != nil || got.status != http.StatusOK || string(got.body) != want {
				t.Errorf("got %d %s, %v, want %s", got.status, got.body, got.err, want)
			}
		}
		for _, tt := range []struct {
			name, field, body string
			typ               websocket.MessageType
		}{
			{"text", textPlain, "héllo", websocket.MessageText},
			{"text with charset", textPlain + `; charset="UTF-8"`, "hi", websocket.MessageText},
			{"binary", octetStream, "\x00\xff", websocket.MessageBinary},
			{"empty", textPlain, "", websocket.MessageText},
			{"as large as may be", octetStream, strings.Repeat("x", maxMessage), websocket.MessageBinary},
		} {
			t.Run(mode.name+"/"+tt.name, func(t *testing.T) {
				pushed := push("client", tt.body, tt.field)
				typ, got, err := read(t, c)
				if err != nil || typ != tt.typ || string(got) != tt.body {
					t.Fatalf("client got %v %.40q, %v", typ, got, err)
				}
				written(t, receive(t, pushed))
				pushed = push("upstream", tt.body, tt.field)
				want := fmt.Sprintf("%s %s", strings.TrimPrefix(tt.typ.String(), "Message"), tt.body)
				if got := receive(t, b.got); got != want {
					t.Errorf("upstream got %.40q, want %.40q", got, want)
				}
				if typ, got, err := read(t, c); err != nil || typ != tt.typ || string(got) != tt.body {
					t.Fatalf("client got %v %.40q, %v of the upstream's echo", typ, got, err)
				}
				written(t, receive(t, pushed))
			})
		}
	}
}

func TestPushRefused(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	c, s := r.dial("/")
	path := "/api/sessions/" + s.Key() + "/messages"
	for _, tt := range []struct {
		name, path, field, body string
		want                    int
	}{
		{"no such session", "/api/sessions/NOBODY/messages?to=client", textPlain, "x", 404},
		{"no side", path, textPlain, "x", 400},
		{"no such side", path + "?to=both", textPlain, "x", 400},
		{"malformed query", path + "?to=client&%zz", textPlain, "x", 400},
		{"no type", path + "?to=client", "X-Nothing: 1", "x", 415},
		{"form", path + "?to=client", "Content-Type: application/x-www-form-urlencoded", "x", 415},
		{"JSON", path + "?to=client", "Content-Type: application/json", "{}", 415},
		{"another charset", path + "?to=client", textPlain + "; charset=iso-8859-1", "x", 415},
		{"malformed type", path + "?to=client", "Content-Type: text/plain; charset", "x", 415},
		{"text that is not UTF-8", path + "?to=client", textPlain, "\xff", 400},
		{"too large", path + "?to=client", octetStream, strings.Repeat("x", maxMessage+1), 413},
		{"too large for an id", "/api/ids/x/messages", octetStream, strings.Repeat("x", maxMessage+1), 413},
		{"no such side for an id", "/api/ids/x/messages?to=all", textPlain, "x", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.wantProblem(r.request("POST", tt.path, []byte(tt.body), tt.field), tt.want)
		})
	}
	echoed(t, c, "nothing else came")
}

func TestPushGone(t *testing.T) {
	r := run(t, "routes: [{path: /*, upstream: none, handlers: [pass]}]\n", Options{})
	_, s := r.dial("/")
	got := r.request("POST", "/api/sessions/"+s.Key()+"/messages?to=upstream", []byte("x"), textPlain)
	if want := `{"result":"gone"}` + "\n"; got.status != http.StatusOK || string(got.body) != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
}

// TestPushFull pushes to a client that reads nothing, until no more is taken.
// The first push that its socket does not take waits for it.
func TestPushFull(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	c, s := r.dial("/")
	path := "/api/sessions/" + s.Key() + "/messages?to=client"
	body := []byte(strings.Repeat("x", maxMessage/2))
	replies := make(chan reply, 200)
	waiting := 0
	ask := func() {
		waiting++
		go func() { replies <- r.ask("POST", path, body, octetStream) }()
	}
	full := reply{}
	for ask(); full.status == 0; waiting-- {
		ask() // a second one: the first may be the one that waits
		got := receive(t, replies)
		if got.err != nil || got.status != http.StatusOK {
			full = got
		}
	}
	r.wantProblem(full, http.StatusServiceUnavailable)
	if full.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	c.CloseNow()
	for ; waiting > 0; waiting-- {
		receive(t, replies)
	}
}

func TestIDs(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ", handlers: [named]"), Options{})
	dial := func(id string) *websocket.Conn {
		c, _, err := websocket.Dial(t.Context(), r.front+"/", &websocket.DialOptions{HTTPHeader: http.Header{"X-Test-Id": {id}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
	first, second, other, nobody := dial("user_socket:42"), dial("user_socket:42"), dial("user/7 ü"), dial("")
	r.eventually("four sessions", func() bool { return len(r.proxy.Sessions()) == 4 })
	want := func(got reply, body string) {
		t.Helper()
		if got.status != http.StatusOK || string(got.body) != body+"\n" {
			t.Errorf("got %d %s, want %s", got.status, got.body, body)
		}
	}
	var listed page
	r.get("/api/sessions?id=user_socket:42", &listed)
	if len(listed.Sessions) != 2 || listed.Sessions[0].ID != "user_socket:42" {
		t.Errorf("listed %+v", listed.Sessions)
	}

	want(r.request("POST", "/api/ids/user_socket:42/messages", []byte("hi"), textPlain), `{"sessions":2}`)
	want(r.request("POST", "/api/ids/user%2F7%20%C3%BC/messages?to=client", []byte("ho"), textPlain), `{"sessions":1}`)
	want(r.request("POST", "/api/ids/user_socket:4/messages", []byte("no"), textPlain), `{"sessions":0}`)
	for c, text := range map[*websocket.Conn]string{first: "hi", second: "hi", other: "ho"} {
		if _, got, err := read(t, c); err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	want(r.request("POST", "/api/ids/user_socket%3A42/messages?to=upstream", []byte("up"), textPlain), `{"sessions":2}`)
	for range 2 {
		if got := receive(t, b.got); got != "Text up" {
			t.Errorf("upstream got %q", got)
		}
	}

	want(r.request("DELETE", "/api/ids/user_socket:42?code=4003&reason=logged+out", nil), `{"sessions":2}`)
	for _, c := range []*websocket.Conn{first, second} {
		_, _, err := read(t, c)
		if err == nil { // it was the echo, which may or may not come before
			_, _, err = read(t, c)
		}
		if websocket.CloseStatus(err) != 4003 {
			t.Errorf("client got %v, want 4003", err)
		}
	}
	r.eventually("two sessions", func() bool { return len(r.proxy.Sessions()) == 2 })
	want(r.request("DELETE", "/api/ids/user_socket:42", nil), `{"sessions":0}`)
	echoed(t, other, "still here")
	echoed(t, nobody, "here too")
}

// TestPhoenixIDs: a Phoenix socket shows its topics, and all sockets of one
// id are closed at once; what its client gets has it reconnect.
func TestPhoenixIDs(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ", protocol: phoenix, handlers: [named]"), Options{})
	var clients []*websocket.Conn
	for _, id := range []string{"user_socket:42", "user_socket:42", "user_socket:43"} {
		c, _, err := websocket.Dial(t.Context(), r.front+"/websocket?vsn=2.0.0", &websocket.DialOptions{HTTPHeader: http.Header{"X-Test-Id": {id}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		echoed(t, c, `["1","1","room:1","phx_join",{}]`)
		echoed(t, c, `["1","1","room:1","phx_reply",{"status":"ok","response":{}}]`)
		clients = append(clients, c)
	}
	var listed page
	r.get("/api/sessions?id=user_socket:42", &listed)
	if len(listed.Sessions) != 2 || !slices.Equal(listed.Sessions[0].Topics, []string{"room:1"}) {
		t.Errorf("listed %+v", listed.Sessions)
	}
	if got := r.request("DELETE", "/api/ids/user_socket:42", nil); strings.TrimSpace(string(got.body)) != `{"sessions":2}` {
		t.Errorf("got %d %s", got.status, got.body)
	}
	for _, c := range clients[:2] {
		if _, _, err := read(t, c); websocket.CloseStatus(err) != 1008 {
			t.Errorf("client got %v, want 1008", err)
		}
	}
	echoed(t, clients[2], `["1","2","room:1","still_here",{}]`)
}
