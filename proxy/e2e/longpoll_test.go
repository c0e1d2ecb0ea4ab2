package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// channels is as much of a Phoenix server as the long-poll client's script
// needs, on WebSockets only.
type channels struct {
	mu     sync.Mutex
	shakes []*http.Request
	conns  []*websocket.Conn
}

func (c *channels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/socket/websocket" {
		http.NotFound(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"phoenix"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	c.mu.Lock()
	c.shakes, c.conns = append(c.shakes, r.Clone(context.Background())), append(c.conns, conn)
	c.mu.Unlock()
	for {
		kind, data, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		for _, answer := range phoenixAnswers(kind, data) {
			if err := conn.Write(context.Background(), websocket.MessageText, answer); err != nil {
				return
			}
		}
	}
}

// lose cuts the latest connection.
func (c *channels) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[len(c.conns)-1].CloseNow()
}

// phoenixAnswers are those to one message in the form of Phoenix's V2 serializer.
func phoenixAnswers(kind websocket.MessageType, data []byte) [][]byte {
	if kind == websocket.MessageBinary {
		m, err := decodePush(data)
		if err != nil {
			return nil
		}
		return [][]byte{phoenixReply(m.joinRef, m.ref, m.topic, map[string]any{"size": len(m.payload)})}
	}
	var m [5]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil
	}
	switch m[3] {
	case "double":
		n, _ := m[4].(map[string]any)["n"].(float64)
		return [][]byte{phoenixReply(m[0], m[1], m[2], map[string]any{"n": 2 * n})}
	case "phx_join":
		told, _ := json.Marshal([]any{m[0], nil, m[2], "told", map[string]any{"n": 1}})
		return [][]byte{phoenixReply(m[0], m[1], m[2], map[string]any{}), told}
	}
	return [][]byte{phoenixReply(m[0], m[1], m[2], map[string]any{})}
}

func phoenixReply(joinRef, ref, topic any, response map[string]any) []byte {
	b, _ := json.Marshal([]any{joinRef, ref, topic, "phx_reply", map[string]any{"status": "ok", "response": response}})
	return b
}

// binaryPush is a binary push.
type binaryPush struct {
	joinRef, ref, topic, event string
	payload                    []byte
}

func decodePush(b []byte) (p binaryPush, err error) {
	if len(b) < 5 || b[0] != 0 {
		return p, errors.New("no binary push")
	}
	rest := b[5:]
	for _, field := range []struct {
		to   *string
		size uint8
	}{{&p.joinRef, b[1]}, {&p.ref, b[2]}, {&p.topic, b[3]}, {&p.event, b[4]}} {
		if int(field.size) > len(rest) {
			return p, errors.New("cut short")
		}
		*field.to, rest = string(rest[:field.size]), rest[field.size:]
	}
	p.payload = rest
	return p, nil
}

// TestPhoenixLongPoll lets the real phoenix.js talk by long poll to a backend
// that has WebSockets only, while its session is kicked and its backend lost.
func TestPhoenixLongPoll(t *testing.T) {
	gate(t)
	for _, tt := range []struct{ version, keys string }{
		{"1.7", ""}, {"1.8", ""}, {"1.7", "    protocol: phoenix\n"}, {"1.8", "    protocol: phoenix\n"},
	} {
		version := tt.version
		t.Run(strings.TrimSpace(version+tt.keys), func(t *testing.T) {
			backend := &channels{}
			server := httptest.NewServer(backend)
			defer server.Close()
			s := startStent(t, route(strings.TrimPrefix(server.URL, "http://"), tt.keys+"    longpoll: true\n"))
			cmd := node(t, "phoenix-longpoll.mjs", version, "ws://"+s.address+"/socket", "of the header")
			lines := make(chan string, 100)
			start(t, cmd, func(line []byte) { lines <- string(line) })
			talked := 0
			var got []string
			deadline := time.After(time.Minute)
			for done := false; !done; {
				select {
				case line := <-lines:
					if line == "close" { // 1.7 closes once more, for good, before it opens another
						continue
					}
					got = append(got, line)
					switch {
					case line == "done":
						done = true
					case strings.HasPrefix(line, "uncaught"):
						t.Fatal(line)
					case line == "talked 22350 5":
						if talked++; talked == 1 {
							kickAll(t, s)
						} else if talked == 2 {
							backend.lose()
						}
					}
				case <-deadline:
					t.Fatalf("not done after\n%s", strings.Join(got, "\n"))
				}
			}
			kicked, lost := "close 1008", "close 1011"
			want := []string{"open", "joined", "told 1", "talked 22350 5", kicked, "open", "joined", "told 1", "talked 22350 5",
				lost, "open", "joined", "told 1", "talked 22350 5"}
			if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			shake := backend.shakes[0]
			q := shake.URL.Query()
			if q.Get("user") != "ann" || q.Get("vsn") != "2.0.0" || fmt.Sprint(q["token"]) != "[of the user]" {
				t.Errorf("query %v", q)
			}
			if version == "1.8" && shake.Header.Get("Sec-Websocket-Protocol") != "phoenix, base64url.bearer.phx.b2YgdGhlIGhlYWRlcg" {
				t.Errorf("subprotocols %q", shake.Header.Get("Sec-Websocket-Protocol"))
			}
		})
	}
}

// kickAll closes all sessions over the admin API.
func kickAll(t *testing.T, s *stent) {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/api/sessions")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Sessions []struct {
			Session string `json:"session"`
			Mode    string `json:"mode"`
		} `json:"sessions"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, session := range list.Sessions {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+s.admin+"/api/sessions/"+session.Session, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusNoContent {
			t.Errorf("kick: %s", resp.Status)
		}
	}
}
