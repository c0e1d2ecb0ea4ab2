package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a room until the test ends; ?token=NAME is who comes.
func start(t *testing.T, store Store) (s *Server, base string) {
	t.Helper()
	s = &Server{Store: store, Authenticate: func(r *http.Request) (User, error) {
		name := r.URL.Query().Get("token")
		if name == "" {
			return User{}, errors.New("no token")
		}
		return User{ID: name, Name: name}, nil
	}}
	mux := http.NewServeMux()
	mux.Handle(Path, s)
	life, end := context.WithCancel(context.Background())
	server := httptest.NewUnstartedServer(mux)
	server.Config.BaseContext = func(net.Listener) context.Context { return life }
	server.Start()
	t.Cleanup(func() {
		end()
		server.Close()
		s.Wait()
	})
	return s, "ws" + strings.TrimPrefix(server.URL, "http") + Path
}

// client is a V2 client.
type client struct {
	t    *testing.T
	conn *websocket.Conn
	ref  int
}

func connect(t *testing.T, base, name string) *client {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), base+"?vsn=2.0.0&token="+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t: t, conn: conn}
}

// push sends an event and returns its ref; join "" is null.
func (c *client) push(join, topic, event, payload string) string {
	c.t.Helper()
	c.ref++
	ref := strconv.Itoa(c.ref)
	joinRef := "null"
	if join != "" {
		joinRef = strconv.Quote(join)
	}
	c.write(fmt.Sprintf(`[%s,%q,%q,%q,%s]`, joinRef, ref, topic, event, payload))
	return ref
}

func (c *client) write(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// until reads until a frame is wanted.
func (c *client) until(what string, wanted func(Frame) bool) Frame {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, data, err := c.conn.Read(ctx)
		if err != nil {
			c.t.Fatalf("wait for %s: %v", what, err)
		}
		f, err := ParseFrame(data)
		if err != nil {
			c.t.Fatalf("%s: %v", data, err)
		}
		if wanted(f) {
			return f
		}
	}
}

func (c *client) event(topic, event string) Frame {
	c.t.Helper()
	return c.until(event, func(f Frame) bool { return f.Topic == topic && f.Event == event })
}

// answer is the payload of the reply to ref.
func (c *client) answer(ref string) string {
	c.t.Helper()
	return string(c.until("reply "+ref, func(f Frame) bool {
		return f.Event == eventReply && f.Ref != nil && *f.Ref == ref
	}).Payload)
}

// join joins and returns the join's ref.
func (c *client) join(topic string) string {
	c.t.Helper()
	ref := strconv.Itoa(c.ref + 1)
	c.push(ref, topic, eventJoin, "{}")
	if got := c.answer(ref); got != accepted {
		c.t.Fatalf("join %s: got %s", topic, got)
	}
	return ref
}

const (
	accepted  = `{"status":"ok","response":{}}`
	unmatched = `{"status":"error","response":{"reason":"unmatched topic"}}`
)

func TestLobby(t *testing.T) {
	_, base := start(t, nil)
	a, b := connect(t, base, "ann"), connect(t, base, "bob")
	ja := a.join(Lobby)
	state := a.event(Lobby, "presence_state")
	if state.JoinRef == nil || *state.JoinRef != ja || !strings.Contains(string(state.Payload), `"ann":{"metas":[{"phx_ref":`) {
		t.Errorf("presence_state: got %s of %v", state.Payload, state.JoinRef)
	}
	jb := b.join(Lobby)
	if got := string(a.event(Lobby, "presence_diff").Payload); !strings.HasPrefix(got, `{"joins":{"bob":{"metas":[{"phx_ref":`) || !strings.HasSuffix(got, `"leaves":{}}`) {
		t.Errorf("presence_diff of a join: got %s", got)
	}
	ref := a.push(ja, Lobby, "new_msg", `{"id":"m1","body":"hello"}`)
	for name, c := range map[string]*client{"a": a, "b": b} {
		f := c.event(Lobby, "new_msg")
		var m Message
		if err := json.Unmarshal(f.Payload, &m); err != nil || m.Body != "hello" || m.From != "ann" || m.ID != "m1" || f.JoinRef != nil {
			t.Errorf("%s heard %s, %v", name, f.Payload, err)
		}
	}
	if got := a.answer(ref); !strings.HasPrefix(got, `{"status":"ok","response":{"at":`) || !strings.Contains(got, `"seq":1`) {
		t.Errorf("acknowledgement: got %s", got)
	}
	ref = b.push(jb, Lobby, eventLeave, "{}")
	if got := b.answer(ref); got != accepted {
		t.Errorf("leave: got %s", got)
	}
	if f := b.event(Lobby, eventClose); f.JoinRef == nil || *f.JoinRef != jb {
		t.Errorf("phx_close: join_ref %v, want %s", f.JoinRef, jb)
	}
	if got := string(a.event(Lobby, "presence_diff").Payload); !strings.Contains(got, `"leaves":{"bob":`) {
		t.Errorf("presence_diff of a leave: got %s", got)
	}
	// Who comes later gets what was said, in order.
	late := connect(t, base, "late")
	late.join(Lobby)
	if got := string(late.event(Lobby, "history").Payload); !strings.Contains(got, `"body":"hello"`) {
		t.Errorf("history: got %s", got)
	}
}

func TestRepeatedMessageIsKeptOnce(t *testing.T) {
	_, base := start(t, nil)
	a := connect(t, base, "ann")
	j := a.join(Lobby)
	first := a.answer(a.push(j, Lobby, "new_msg", `{"id":"m1","body":"hello"}`))
	if again := a.answer(a.push(j, Lobby, "new_msg", `{"id":"m1","body":"hello"}`)); again != first {
		t.Errorf("repeat: got %s, want %s", again, first)
	}
	if got := a.answer(a.push(j, Lobby, "new_msg", `{"id":"m1","body":"other"}`)); !strings.Contains(got, "another message has this id") {
		t.Errorf("other message of the id: got %s", got)
	}
	b := connect(t, base, "bob")
	b.join(Lobby)
	if got := string(b.event(Lobby, "history").Payload); strings.Count(got, `"seq"`) != 1 {
		t.Errorf("history: got %s", got)
	}
}

func TestPrivateMessages(t *testing.T) {
	_, base := start(t, nil)
	a, b, c := connect(t, base, "ann"), connect(t, base, "bob"), connect(t, base, "cyd")
	ja, _, jc := a.join(Private), b.join(Private), c.join(Private)
	a.push(ja, Private, "send_msg", `{"id":"p1","to":"bob","body":"psst"}`)
	for _, who := range []*client{a, b} {
		var m Message
		if f := who.event(Private, "receive_msg"); json.Unmarshal(f.Payload, &m) != nil || m.Body != "psst" || m.From != "ann" || m.To != "bob" {
			t.Errorf("heard %s", f.Payload)
		}
	}
	// The next thing that cyd hears of messages is her own.
	c.push(jc, Private, "send_msg", `{"id":"p2","to":"bob","body":"mine"}`)
	if f := c.event(Private, "receive_msg"); !strings.Contains(string(f.Payload), "mine") {
		t.Errorf("a stranger heard %s", f.Payload)
	}
	if got := a.answer(a.push(ja, Private, "send_msg", `{"to":{},"body":"x"}`)); !strings.Contains(got, "to is not a user") {
		t.Errorf("nobody: got %s", got)
	}
}

func TestAnswers(t *testing.T) {
	_, base := start(t, nil)
	c := connect(t, base, "ann")
	j := c.join(Lobby)
	for _, tt := range []struct{ name, join, topic, event, payload, want string }{
		{"heartbeat", "", "phoenix", "heartbeat", "{}", accepted},
		{"other system event", "", "phoenix", "x", "{}", unmatched},
		{"other room", "90", "room:secret", eventJoin, "{}", `{"status":"error","response":{"reason":"unauthorized"}}`},
		{"other topic", "91", "game:1", eventJoin, "{}", unmatched},
		{"topic not joined", "", Private, "send_msg", "{}", unmatched},
		{"join that is over", "77", Lobby, "new_msg", `{"body":"x"}`, unmatched},
		{"leave of a join that is over", "77", Lobby, eventLeave, "{}", accepted},
		{"unknown event", j, Lobby, "dance", "{}", `{"status":"error","response":{"reason":"unknown event"}}`},
		{"empty body", j, Lobby, "new_msg", `{"body":" "}`, `{"status":"error","response":{"reason":"body is empty"}}`},
		{"long body", j, Lobby, "new_msg", `{"body":"` + strings.Repeat("x", maxBody+1) + `"}`, `{"status":"error","response":{"reason":"body is too long"}}`},
		{"body of another type", j, Lobby, "new_msg", `{"body":1}`, `{"status":"error","response":{"reason":"want {\"body\": \"…\"}"}}`},
		{"payload of another type", j, Lobby, "new_msg", `[]`, `{"status":"error","response":{"reason":"want {\"body\": \"…\"}"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := c.answer(c.push(tt.join, tt.topic, tt.event, tt.payload)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	// A second join replaces the first.
	c.ref = 500
	c.push("501", Lobby, eventJoin, "{}")
	if f := c.event(Lobby, eventClose); *f.JoinRef != j {
		t.Errorf("closed %s, want %s", *f.JoinRef, j)
	}
	if got := c.answer("501"); got != accepted {
		t.Errorf("second join: got %s", got)
	}
}

func TestTopicsOfASocketAreBounded(t *testing.T) {
	_, base := start(t, nil)
	c := connect(t, base, "ann")
	for i := range maxTopics {
		c.join(fmt.Sprintf("room:direct:ann+b%d", i))
	}
	if got := c.answer(c.push("x", Lobby, eventJoin, "{}")); !strings.Contains(got, "too many topics") {
		t.Errorf("got %s", got)
	}
}

func TestRefusals(t *testing.T) {
	_, base := start(t, nil)
	for name, query := range map[string]string{"no token": "?vsn=2.0.0", "old version": "?vsn=1.0.0&token=ann"} {
		_, resp, err := websocket.Dial(t.Context(), base+query, nil)
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %v, want 403", name, err)
		}
	}
	for _, bad := range []string{"hello", "{}", "[]", `["1","1","room:lobby","phx_join"]`, `[1,2,3,4,5]`, `[null,null,null,"x",{}]`} {
		c := connect(t, base, "ann")
		c.write(bad)
		if _, _, err := c.conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
			t.Errorf("%s: got %v, want close 1003", bad, err)
		}
	}
}

// broken is a Store that panics when it is to keep "crash".
type broken struct{ Memory }

func (b *broken) Save(ctx context.Context, m Message) (Message, bool, error) {
	switch m.Body {
	case "crash":
		panic("crash")
	case "fail":
		return Message{}, false, errors.New("disk of /secret/path is full")
	}
	return b.Memory.Save(ctx, m)
}

func TestCrashOfAChannelIsItsOwn(t *testing.T) {
	_, base := start(t, new(broken))
	a, b := connect(t, base, "ann"), connect(t, base, "bob")
	ja, jp, jb := a.join(Lobby), a.join(Private), b.join(Lobby)
	a.push(ja, Lobby, "new_msg", `{"body":"crash"}`)
	if f := a.event(Lobby, eventError); f.JoinRef == nil || *f.JoinRef != ja {
		t.Errorf("phx_error of %v, want %s", f.JoinRef, ja)
	}
	if got := string(b.until("ann's leave", func(f Frame) bool {
		return f.Event == "presence_diff" && strings.Contains(string(f.Payload), `"leaves":{"ann"`)
	}).Payload); got == "" {
		t.Error("ann is still present")
	}
	if got := a.answer(a.push(jp, Private, "send_msg", `{"to":"bob","body":"x"}`)); !strings.Contains(got, `"status":"ok"`) {
		t.Errorf("the other channel: got %s", got)
	}
	ja = a.join(Lobby) // as phoenix.js does
	b.push(jb, Lobby, "new_msg", `{"body":"still here"}`)
	a.event(Lobby, "new_msg")
	if got := a.answer(a.push(ja, Lobby, "new_msg", `{"body":"fail"}`)); got != `{"status":"error","response":{"reason":"internal error"}}` {
		t.Errorf("an error of the store: got %s", got)
	}
}

func TestDisconnect(t *testing.T) {
	s, base := start(t, nil)
	a, b := connect(t, base, "ann"), connect(t, base, "bob")
	a.join(Lobby)
	jb := b.join(Lobby)
	if got := s.Disconnect(func(u User) bool { return u.SocketID() == "user_socket:ann" }); got != 1 {
		t.Errorf("got %d sockets, want 1", got)
	}
	for {
		_, _, err := a.conn.Read(t.Context())
		if err == nil {
			continue
		}
		if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("got %v, want close 1008", err)
		}
		break
	}
	if got := b.answer(b.push(jb, Lobby, "new_msg", `{"body":"x"}`)); !strings.Contains(got, `"ok"`) {
		t.Errorf("the other: got %s", got)
	}
}

func TestWhoTakesNothingIsPutOut(t *testing.T) {
	s, base := start(t, nil)
	slow, b := connect(t, base, "slow"), connect(t, base, "bob")
	slow.join(Lobby)
	b.join(Lobby)
	// Encoded once: a race detector must not make this slower than the writer.
	noise := []byte(`[null,null,"room:lobby","noise",{"x":"` + strings.Repeat("x", 1<<20) + `"}]`)
	one := s.hub.matching(func(u User) bool { return u.ID == "slow" })[0]
	for one.offer(noise) {
	}
	if got := s.overflows.Load(); got != 1 {
		t.Errorf("counted %d overflows, want 1", got)
	}
	b.until("the leave", func(f Frame) bool {
		return f.Event == "presence_diff" && strings.Contains(string(f.Payload), `"leaves":{"slow"`)
	})
}
