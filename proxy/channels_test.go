package proxy

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/phoenix"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// What the two sides of a Phoenix socket say, in version 2.
func phx(joinRef, ref, topic, event, payload string) string {
	quote := func(s string) string {
		if s == "" {
			return "null"
		}
		return strconv.Quote(s)
	}
	return fmt.Sprintf(`[%s,%s,%q,%q,%s]`, quote(joinRef), quote(ref), topic, event, payload)
}

func phxJoin(ref, topic string) string { return phx(ref, ref, topic, "phx_join", `{"token":"t"}`) }
func phxOK(joinRef, ref, topic string) string {
	return phx(joinRef, ref, topic, "phx_reply", `{"status":"ok","response":{}}`)
}
func phxRefused(joinRef, ref, topic, reason string) string {
	return phx(joinRef, ref, topic, "phx_reply", `{"status":"error","response":{"reason":"`+reason+`"}}`)
}
func phxLost(joinRef, topic string) string {
	return phx(joinRef, joinRef, topic, "phx_error", `{"reason":"upstream lost"}`)
}
func phxBeat(ref string) string { return phx("", ref, "phoenix", "heartbeat", `{}`) }
func phxSaid(joinRef, ref, topic, what string) string {
	return phx(joinRef, ref, topic, "new_msg", `{"body":"`+what+`"}`)
}

const (
	rejoining = "continuity: {hold: 20s, backoff: {min: 1ms, max: 10ms}, replay: {joins: true}}"
	channeled = "protocol: phoenix"
)

// newPhoenixStage is a stage whose client has joined three topics.
func newPhoenixStage(t *testing.T, m mode, route ...string) *stage {
	t.Helper()
	m.route = lines(append([]string{m.route, channeled}, route...)...)
	s := m.stage(t, "", "", testHandlers)
	s.openPhoenix()
	for _, topic := range []string{"1", "2", "3"} {
		s.joins(topic, "room:"+topic)
	}
	return s
}

func (s *stage) openPhoenix() {
	s.t.Helper()
	s.client = s.dial()
	s.client.say(handshake("/websocket?token=x&vsn=2.0.0", s.offer...))
	s.next()
	if resp := s.client.status(); resp.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("client is answered %s", resp.Status)
	}
}

func (s *stage) joins(ref, topic string) {
	s.t.Helper()
	s.client.tell(phxJoin(ref, topic))
	s.upstream.hears(phxJoin(ref, topic))
	s.upstream.tell(phxOK(ref, ref, topic))
	s.client.hears(phxOK(ref, ref, topic))
}

// quiet checks that both directions work and that nothing is on its way.
func (s *stage) quiet() {
	s.t.Helper()
	ask, answer := phx("", "quiet", "quiet", "ask", "{}"), phxRefused("", "quiet", "quiet", "unmatched topic")
	s.client.tell(ask)
	s.upstream.hears(ask)
	s.upstream.tell(answer)
	s.client.hears(answer)
}

// phoenixModes are the ways for Channels: each message by itself, and
// compressed on both legs.
var phoenixModes = []mode{{name: "plain"}, inDeflate}

// channelTest plays a test on both engines, in each mode.
func channelTest(t *testing.T, route string, play func(s *stage)) {
	t.Helper()
	engines(t, func(t *testing.T) {
		for _, m := range phoenixModes {
			t.Run(m.name, func(t *testing.T) {
				s := newPhoenixStage(t, m, route)
				play(s)
				s.quiet()
			})
		}
	})
}

// An upstream that is lost with three joined topics: where joins are
// repeated, the client sees nothing of it, and what it pushes meanwhile goes
// behind them in order.
func TestChannelsAreRejoined(t *testing.T) {
	channelTest(t, rejoining, func(s *stage) {
		s.client.tell(phx("2", "4", "room:2", "phx_leave", "{}"))
		s.upstream.hears(phx("2", "4", "room:2", "phx_leave", "{}"))
		s.upstream.tell(phxOK("2", "4", "room:2"), phx("2", "2", "room:2", "phx_close", "{}"))
		s.client.hears(phxOK("2", "4", "room:2"), phx("2", "2", "room:2", "phx_close", "{}"))
		s.joins("5", "room:4")
		for range 2 {
			next := s.hold()
			s.client.tell(phxSaid("1", "6", "room:1", "a"), phxSaid("3", "7", "room:3", "b"), phxSaid("1", "8", "room:1", "c"))
			s.resume(next)
			s.upstream.hears(phxJoin("1", "room:1"), phxJoin("3", "room:3"), phxJoin("5", "room:4"),
				phxSaid("1", "6", "room:1", "a"), phxSaid("3", "7", "room:3", "b"), phxSaid("1", "8", "room:1", "c"))
			s.upstream.tell(phxOK("1", "1", "room:1"), phxSaid("", "", "room:1", "between"), phxOK("3", "3", "room:3"), phxOK("5", "5", "room:4"),
				phxOK("1", "6", "room:1"))
			s.client.hears(phxSaid("", "", "room:1", "between"), phxOK("1", "6", "room:1"))
		}
		if got, want := s.session().Topics(), []string{"room:1", "room:3", "room:4"}; !slices.Equal(got, want) {
			s.t.Errorf("topics %q, want %q", got, want)
		}
	})
}

// A repeated join that is refused has the client join by itself.
func TestRejoinRefused(t *testing.T) {
	channelTest(t, rejoining, func(s *stage) {
		s.resume(s.hold())
		s.upstream.hears(phxJoin("1", "room:1"), phxJoin("2", "room:2"), phxJoin("3", "room:3"))
		s.upstream.tell(phxOK("1", "1", "room:1"), phxRefused("2", "2", "room:2", "gone"), phx("3", "3", "room:3", "phx_close", "{}"))
		s.client.hears(phxLost("2", "room:2"), phx("3", "3", "room:3", "phx_close", "{}"))
		s.client.tell(phxJoin("9", "room:2"))
		s.upstream.hears(phxJoin("9", "room:2"))
		s.upstream.tell(phxRefused("9", "9", "room:2", "gone"))
		s.client.hears(phxRefused("9", "9", "room:2", "gone"))
		s.resume(s.hold())
		s.upstream.hears(phxJoin("1", "room:1"))
		s.upstream.tell(phxOK("1", "1", "room:1"))
	})
}

// Without that each topic gets one phx_error at once, and the client's own
// joins reach the next upstream once, however often it repeats them.
func TestChannelsAreToldOnce(t *testing.T) {
	channelTest(t, kept, func(s *stage) {
		next := s.hold()
		s.client.hears(phxLost("1", "room:1"), phxLost("2", "room:2"), phxLost("3", "room:3"))
		s.client.tell(phxJoin("4", "room:1"), phxJoin("5", "room:2"), phx("4", "6", "room:1", "phx_leave", "{}"), phxJoin("7", "room:1"))
		s.client.hears(phxOK("4", "6", "room:1"))
		s.client.send(ping("they were read"))
		s.client.expect("pong they were read")
		s.resume(next)
		s.upstream.hears(phxJoin("5", "room:2"), phxJoin("7", "room:1"))
		s.upstream.tell(phxOK("5", "5", "room:2"), phxOK("7", "7", "room:1"))
		s.client.hears(phxOK("5", "5", "room:2"), phxOK("7", "7", "room:1"))
		s.resume(s.hold())
		s.client.hears(phxLost("5", "room:2"), phxLost("7", "room:1"))
	})
}

// A join that the lost upstream has not answered goes to the next one, and
// that one's answer to the client.
func TestUnansweredJoin(t *testing.T) {
	for _, route := range []string{kept, rejoining} {
		channelTest(t, route, func(s *stage) {
			s.client.tell(phxJoin("4", "room:4"))
			s.upstream.hears(phxJoin("4", "room:4"))
			next := s.hold()
			want := []string{phxJoin("1", "room:1"), phxJoin("2", "room:2"), phxJoin("3", "room:3"), phxJoin("4", "room:4")}
			if route == kept {
				s.client.hears(phxLost("1", "room:1"), phxLost("2", "room:2"), phxLost("3", "room:3"))
				want = want[3:]
			}
			s.resume(next)
			s.upstream.hears(want...)
			s.upstream.tell(phxOK("4", "4", "room:4"))
			s.client.hears(phxOK("4", "4", "room:4"))
		})
	}
}

// A join that was held before its client knew of a loss, and is given up, goes
// to the next upstream all the same: what the client says next is behind it.
func TestJoinsInTheHoldKeepTheirOrder(t *testing.T) {
	for _, route := range []string{kept, rejoining} {
		channelTest(t, route, func(s *stage) {
			s.upstream.mute = true
			if !s.session().link.Move() {
				s.t.Fatal("not moved")
			}
			s.upstream.expect("close 1001")
			s.client.tell(phxJoin("4", "room:4"))
			s.client.send(ping("it was read"))
			s.client.expect("pong it was read")
			s.upstream.send(closing(1001, ""))
			next := s.accept()
			first := []string{phxJoin("1", "room:1"), phxJoin("2", "room:2"), phxJoin("3", "room:3")}
			if route == kept {
				s.client.hears(phxLost("1", "room:1"), phxLost("2", "room:2"), phxLost("3", "room:3"))
				first = nil
			}
			held := []string{phxJoin("4", "room:4"), phx("4", "5", "room:4", "phx_leave", "{}"), phxJoin("6", "room:4")}
			s.client.tell(held[1:]...)
			s.client.tell(phxBeat("7"))
			s.client.hears(phxOK("", "7", "phoenix"))
			s.resume(next)
			s.upstream.hears(slices.Concat(first, held)...)
			s.upstream.tell(phxOK("4", "4", "room:4"), phxOK("4", "5", "room:4"), phxOK("6", "6", "room:4"))
			s.client.hears(phxOK("4", "4", "room:4"), phxOK("4", "5", "room:4"), phxOK("6", "6", "room:4"))
		})
	}
}

// Heartbeats are answered while there is no upstream, also the one that it
// owes an answer to.
func TestHeartbeatsWhileHeld(t *testing.T) {
	channelTest(t, rejoining, func(s *stage) {
		s.client.tell(phxBeat("10"))
		s.upstream.hears(phxBeat("10"))
		next := s.hold()
		s.client.hears(phxOK("", "10", "phoenix"))
		for i := range 5 {
			ref := strconv.Itoa(20 + i)
			s.client.tell(phxBeat(ref))
			s.client.hears(phxOK("", ref, "phoenix"))
		}
		s.resume(next)
		s.upstream.hears(phxJoin("1", "room:1"), phxJoin("2", "room:2"), phxJoin("3", "room:3"))
		s.upstream.tell(phxOK("1", "1", "room:1"), phxOK("2", "2", "room:2"), phxOK("3", "3", "room:3"))
	})
}

// A client that is let in early joins when there is an upstream.
func TestChannelsAcceptEarly(t *testing.T) {
	engines(t, func(t *testing.T) {
		s := newStage(t, lines(channeled, strings.Replace(rejoining, "{", "{accept_early: true, ", 1)), "", testHandlers)
		s.client = s.dial()
		s.client.say(handshake("/?vsn=2.0.0"))
		if resp := s.client.status(); resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("client is answered %s", resp.Status)
		}
		next := s.accept()
		s.client.tell(phxJoin("1", "room:1"), phxBeat("2"))
		s.client.hears(phxOK("", "2", "phoenix"))
		s.resume(next)
		s.upstream.hears(phxJoin("1", "room:1"))
		s.upstream.tell(phxOK("1", "1", "room:1"))
		s.client.hears(phxOK("1", "1", "room:1"))
		s.quiet()
	})
}

// Version 1, which is what a client gets that asks for nothing, and binary
// messages of version 2.
func TestChannelForms(t *testing.T) {
	engines(t, func(t *testing.T) {
		s := newStage(t, lines(channeled, rejoining), "", testHandlers)
		s.open()
		v1 := func(ref, event, payload string) string {
			return fmt.Sprintf(`{"topic":"room:1","event":%q,"payload":%s,"ref":%q}`, event, payload, ref)
		}
		ok := v1("1", "phx_reply", `{"status":"ok","response":{}}`)
		s.client.tell(v1("1", "phx_join", "{}"))
		s.upstream.hears(v1("1", "phx_join", "{}"))
		s.upstream.tell(ok)
		s.client.hears(ok)
		next := s.hold()
		s.client.tell(`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}`)
		s.client.hears(`{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}`)
		s.resume(next)
		s.upstream.hears(v1("1", "phx_join", "{}"))
		s.upstream.tell(ok, v1("1", "new_msg", "{}"))
		s.client.hears(v1("1", "new_msg", "{}"))
	})
	engines(t, func(t *testing.T) {
		s := newPhoenixStage(t, mode{}, rejoining)
		push := "\x00\x01\x01\x06\x071" + "4room:1new_msg\xff\x00"
		s.client.send(octets(push))
		s.upstream.hears(push)
		reply := "\x01\x01\x01\x06\x021" + "4room:1ok\xff"
		s.upstream.send(octets(reply))
		s.client.hears(reply)
		s.resume(s.hold())
		s.upstream.hears(phxJoin("1", "room:1"), phxJoin("2", "room:2"), phxJoin("3", "room:3"))
		s.upstream.send(octets("\x01\x01\x01\x06\x021" + "1room:1ok\xff")) // a join's answer may be
		s.upstream.tell(phxSaid("", "", "room:1", "more"))
		s.client.hears(phxSaid("", "", "room:1", "more"))
	})
}

// What a rule denies never reaches the upstream, with continuity or without.
func TestTopicsAtTheEdge(t *testing.T) {
	const topics = `topics: [{match: "room:secret"}, {match: "room:*", allow: true, joins_per_second: 3}, {match: "user:*", allow: true, claim: "sub={*}"}]`
	for _, continuity := range []string{"", rejoining} {
		channelTest(t, lines(topics, continuity), func(s *stage) {
			s.client.tell(phxJoin("4", "room:secret"), phxJoin("5", "user:42"), phxJoin("6", "room:4"), phxJoin("7", "other"))
			s.client.hears(
				phxRefused("4", "4", "room:secret", "unauthorized"), phxRefused("5", "5", "user:42", "unauthorized"),
				phxRefused("6", "6", "room:4", "rate limited"), phxRefused("7", "7", "other", "unauthorized"))
			s.quiet()
			m := s.metrics()
			for key, want := range map[string]float64{
				"stent_channel_joins_total{result=ok,route=/*,topic=room:*}":          3,
				"stent_channel_joins_total{result=limited,route=/*,topic=room:*}":     1,
				"stent_channel_joins_total{result=denied,route=/*,topic=room:secret}": 1,
				"stent_channel_joins_total{result=denied,route=/*,topic=user:*}":      1,
				"stent_channel_joins_total{result=denied,route=/*,topic=other}":       1,
			} {
				if m[key] != want {
					s.t.Errorf("%s is %v, want %v", key, m[key], want)
				}
			}
		})
	}
	engines(t, func(t *testing.T) {
		s := newPhoenixStage(t, mode{}, topics)
		s.client.tell(`["1","1","room:secret"`)
		s.client.expect("close 1008 not a message of the Channels protocol", "fin")
		s.upstream.expect("close 1001", "fin")
	})
}

// A rule may ask for what the client's token says, and a socket's id closes
// all of a user's sockets, as Phoenix's "disconnect" broadcast does.
func TestPhoenixIdentity(t *testing.T) {
	engines(t, func(t *testing.T) {
		backend := newFakePhoenix(t)
		p, _ := launch(t, members(backend.url, "", `, protocol: phoenix, topics: [{match: "user:*", allow: true, claim: "sub={*}"}]`), nil)
		var clients []*websocket.Conn
		for _, sub := range []string{"42", "42", "43"} {
			c, _, err := join(t, p, tokentest.Claims{"sub": sub, "exp": time.Now().Add(time.Hour).Unix()})
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
			ask := func(topic, want string) {
				t.Helper()
				message := fmt.Sprintf(`{"topic":%q,"event":"phx_join","payload":{},"ref":"1"}`, topic)
				if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
					t.Fatal(err)
				}
				_, got, err := c.Read(t.Context())
				m, _ := phoenix.FromServer(got)
				if err != nil || m.ReplyStatus() != want {
					t.Fatalf("%s joins %s: got %s, %v, want %s", sub, topic, got, err, want)
				}
			}
			ask("user:"+sub, "ok")
			ask("user:7", "error")
		}
		sessions := p.SessionsWithID("user_socket:42")
		if len(sessions) != 2 {
			t.Fatalf("%d sessions of user_socket:42, want 2", len(sessions))
		}
		for _, s := range sessions {
			s.Close(1001, "disconnect")
		}
		for _, c := range clients[:2] {
			if bad, err := farewell(t.Context(), c); err != nil || bad.Code != 1001 {
				t.Errorf("closed with %v, %v, want 1001", bad, err)
			}
		}
		if got := len(p.SessionsWithID("user_socket:43")); got != 1 {
			t.Errorf("%d sessions of user_socket:43, want 1", got)
		}
		if slices.Contains(backend.joins(), "user:7") {
			t.Error("a denied join has reached the backend")
		}
	})
}

// Events are counted by name, and names that clients make up are bounded.
func TestChannelMetrics(t *testing.T) {
	engines(t, func(t *testing.T) {
		s := newPhoenixStage(t, mode{}, kept)
		for i := range maxNames + 20 {
			m := phx("1", "", "room:1", fmt.Sprintf("event_%d", i), "{}")
			s.client.tell(m)
			s.upstream.hears(m)
		}
		s.client.tell(phx("", "", "unknown", "event_of_no_channel", "{}"))
		s.upstream.tell(phxSaid("", "", "room:1", "a"), phxSaid("", "", "room:2", "b"), phx("2", "2", "room:2", "phx_error", "{}"))
		s.client.hears(phxSaid("", "", "room:1", "a"), phxSaid("", "", "room:2", "b"), phx("2", "2", "room:2", "phx_error", "{}"))
		s.resume(s.hold())
		s.client.hears(phxLost("1", "room:1"), phxLost("3", "room:3"))
		m := s.metrics()
		events := 0
		for key := range m {
			if strings.HasPrefix(key, "stent_channel_events_total{") {
				events++
			}
		}
		if want := 2 * (maxNames + 1); events != want {
			t.Errorf("%d series of events, want %d", events, want)
		}
		for key, want := range map[string]float64{
			"stent_channel_events_total{event=event_1,from=client,route=/*}":     1,
			"stent_channel_events_total{event=other,from=client,route=/*}":       20,
			"stent_channel_events_total{event=other,from=upstream,route=/*}":     2,
			"stent_channel_errors_total{from=upstream,route=/*,topic=room:*}":    1,
			"stent_channel_errors_total{from=stent,route=/*,topic=room:*}":       2,
			"stent_channel_joins_total{result=ok,route=/*,topic=room:*}":         3,
			"stent_channel_events_total{event=phx_error,from=client,route=/*}":   0,
			"stent_channel_events_total{event=phx_reply,from=upstream,route=/*}": 0,
		} {
			if m[key] != want {
				t.Errorf("%s is %v, want %v", key, m[key], want)
			}
		}
	})
}

// The names in binary messages may be any bytes, those in metrics may not.
func TestChannelNamesThatAreNoText(t *testing.T) {
	engines(t, func(t *testing.T) {
		const denied = "\x00\x01\x01\x06\x0866" + "other\xffphx_join{}"
		s := newPhoenixStage(t, mode{}, `topics: [{match: "room:*", allow: true}]`)
		push := "\x00\x01\x01\x06\x0114" + "room:1\xffpayload"
		s.client.send(octets(push))
		s.upstream.hears(push)
		broadcast := "\x02\x06\x01room:1\xffpayload"
		s.upstream.send(octets(broadcast))
		s.client.hears(broadcast)
		s.client.send(octets(denied))
		s.client.hears(strings.ReplaceAll(phxRefused("6", "6", "other?", "unauthorized"), "?", `\ufffd`))
		allowed := "\x00\x01\x01\x06\x0877" + "room:\xffphx_join{}"
		s.client.send(octets(allowed))
		s.upstream.hears(allowed)
		s.quiet()
		m := s.metrics()
		for key, want := range map[string]float64{
			"stent_channel_events_total{event=\ufffd,from=client,route=/*}":       1,
			"stent_channel_events_total{event=\ufffd,from=upstream,route=/*}":     1,
			"stent_channel_joins_total{result=denied,route=/*,topic=other\ufffd}": 1,
		} {
			if m[key] != want {
				t.Errorf("%s is %v, want %v", key, m[key], want)
			}
		}
	})
	// It keeps its place when there is none for others.
	c := newMetrics().route("/*").channels
	first := c.event([]byte("\xff"))
	for i := range maxNames {
		c.event(fmt.Appendf(nil, "event_%d", i))
	}
	if c.event([]byte("\xff")) != first {
		t.Error("an event is counted as another later on")
	}
}

// fakePhoenix is a small Channels backend: anybody joins anything, new_msg
// is acknowledged and remembered, crash ends a channel.
type fakePhoenix struct {
	url string

	mu    sync.Mutex
	conns map[*websocket.Conn]bool
	join  []string // topics, in order
	said  []string // payloads of new_msg, in order
}

func newFakePhoenix(t *testing.T) *fakePhoenix {
	t.Helper()
	f := &fakePhoenix{conns: make(map[*websocket.Conn]bool)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		f.serve(r.Context(), c, phoenix.VersionOf(r.URL.RawQuery))
	}))
	t.Cleanup(func() {
		f.kill()
		server.Close()
	})
	f.url = "ws" + strings.TrimPrefix(server.URL, "http")
	return f
}

// kill resets all connections, as a crash does.
func (f *fakePhoenix) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.CloseNow()
	}
	clear(f.conns)
}

func (f *fakePhoenix) joins() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.join)
}

func (f *fakePhoenix) remembered() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.said)
}

func (f *fakePhoenix) serve(ctx context.Context, c *websocket.Conn, v phoenix.Version) {
	defer c.CloseNow()
	f.mu.Lock()
	f.conns[c] = true
	f.mu.Unlock()
	joined := make(map[string][]byte)
	for {
		_, data, err := c.Read(ctx)
		if err != nil {
			return
		}
		m, err := phoenix.FromClient(data)
		if err != nil {
			c.Close(websocket.StatusInternalError, "")
			return
		}
		topic := string(m.Topic)
		_, known := joined[topic]
		answer := phoenix.Message{JoinRef: m.JoinRef, Ref: m.Ref, Topic: m.Topic, Event: []byte("phx_reply"), Payload: []byte(`{"status":"ok","response":{}}`)}
		switch {
		case m.IsHeartbeat():
		case m.Is("phx_join"):
			f.mu.Lock()
			f.join = append(f.join, topic)
			f.mu.Unlock()
			joined[topic] = m.JoinRef
		case !known:
			answer.JoinRef, answer.Payload = nil, []byte(`{"status":"error","response":{"reason":"unmatched topic"}}`)
		case m.Is("phx_leave"):
			delete(joined, topic)
		case m.Is("crash"):
			delete(joined, topic)
			answer.Event, answer.Payload = []byte("phx_error"), []byte(`{}`)
		case m.Is("new_msg"):
			f.mu.Lock()
			f.said = append(f.said, string(m.Payload))
			f.mu.Unlock()
		}
		if c.Write(ctx, websocket.MessageText, phoenix.AppendText(nil, v, &answer)) != nil {
			return
		}
	}
}

// TestChannelsOutliveCrashes has a client push through many crashes of its
// backend: it hears of none, and what is acknowledged is there, once and in
// order.
func TestChannelsOutliveCrashes(t *testing.T) {
	const crashes, between = 25, 40
	engines(t, func(t *testing.T) {
		backend := newFakePhoenix(t)
		p, _ := launch(t, fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"off\"}\nroutes:\n  - path: /*\n    upstream: app\n    protocol: phoenix\n    continuity: {max_restarts: 1000, backoff: {min: 1ms, max: 20ms}, replay: {joins: true}}\nupstreams: {app: {targets: [%q]}}\n", backend.url), nil)
		c, _, err := websocket.Dial(t.Context(), "ws://"+p.Addrs()[0].String()+"/socket?vsn=2.0.0", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		acked := make(chan string, 4*crashes*between)
		read := make(chan error, 1)
		go func() { read <- readAcks(t.Context(), c, acked) }()
		write := func(m string) {
			t.Helper()
			if err := c.Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		rooms := []string{"room:1", "room:2", "room:3"}
		for i, room := range rooms {
			write(phxJoin(fmt.Sprint("j", i+1), room))
			<-acked
		}
		n := 0
		push := func() string {
			n++
			ref := strconv.Itoa(n)
			room := n % len(rooms)
			write(phxSaid(fmt.Sprint("j", room+1), ref, rooms[room], ref))
			return ref
		}
		seen := map[string]int{}
		for range crashes {
			await(t, acked, seen, push)
			for range between {
				push()
			}
			backend.kill()
		}
		await(t, acked, seen, push)
		c.Close(websocket.StatusNormalClosure, "")
		<-read
		last := 0
		counts := map[string]int{}
		for _, payload := range backend.remembered() {
			var said struct{ Body string }
			json.Unmarshal([]byte(payload), &said)
			counts[said.Body]++
			i, _ := strconv.Atoi(said.Body)
			if i <= last {
				t.Errorf("%d came after %d", i, last)
			}
			last = i
		}
		for ref, times := range seen {
			if counts[ref] != 1 || times != 1 {
				t.Errorf("push %s: acknowledged %d times, remembered %d times", ref, times, counts[ref])
			}
		}
		t.Logf("%d of %d pushes acknowledged, %d remembered", len(seen), n, len(counts))
	})
}

// await pushes until a push is acknowledged: then all before it are, or
// never will be.
func await(t *testing.T, acked <-chan string, seen map[string]int, push func() string) {
	t.Helper()
	deadline := time.After(4 * patience)
	for {
		ref := push()
		timeout := time.After(patience / 4)
		for wait := true; wait; {
			select {
			case got := <-acked:
				seen[got]++
				if got == ref {
					return
				}
			case <-timeout:
				wait = false
			case <-deadline:
				t.Fatal("no push is acknowledged any more")
			}
		}
	}
}

// readAcks reads what the client gets: nothing but replies that say ok.
func readAcks(ctx context.Context, c *websocket.Conn, acked chan<- string) error {
	for {
		_, data, err := c.Read(ctx)
		if err != nil {
			return err
		}
		m, err := phoenix.FromServer(data)
		if err != nil || m.ReplyStatus() != "ok" {
			acked <- "unexpected: " + string(data)
			continue
		}
		acked <- string(bytes.Trim(m.Ref, `"`))
	}
}

func octets(payload string) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Binary}, payload: []byte(payload)}
}

// hears is told for messages that may be compressed.
func (w *wire) hears(want ...string) {
	w.t.Helper()
	for i := range want {
		if got := w.hear(); got != want[i] {
			w.t.Fatalf("message %d: got %s, want %s", i, got, want[i])
		}
	}
}

func (w *wire) hear() string {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	for have := 1; ; have++ {
		b, err := w.in.Peek(have)
		if err != nil {
			w.t.Fatalf("read: %v", err)
		}
		h, n, err := frame.ParseHeader(b)
		if err != nil {
			w.t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		payload := readPayload(w.t, w)
		if h.Rsv != frame.Rsv1 {
			return string(payload)
		}
		plain, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		if err != nil {
			w.t.Fatalf("inflate: %v", err)
		}
		return string(plain)
	}
}
