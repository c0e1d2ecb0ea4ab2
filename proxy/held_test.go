package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// hold loses the upstream and returns the one that is dialled next, which
// has not answered: until then the client is held.
func (s *stage) hold() *wire {
	s.t.Helper()
	s.upstream.reset()
	return s.accept()
}

// resume lets a held session go on with an upstream that was dialled.
func (s *stage) resume(w *wire) {
	s.t.Helper()
	s.upstream = w
	w.say(w.switching(s.agree...))
}

// staged plays a test in each mode.
func staged(t *testing.T, modes []mode, route string, play func(t *testing.T, s *stage)) {
	t.Helper()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			play(t, m.stage(t, route, "", testHandlers))
		})
	}
}

func TestHeldPings(t *testing.T) {
	staged(t, anyMode, kept, func(t *testing.T, s *stage) {
		s.open()
		next := s.hold()
		s.client.send(ping("while held"))
		s.client.expect("pong while held")
		s.resume(next)
		s.client.send(text("a"))
		s.upstream.expect("text a")
	})
}

// A ping that the lost upstream owes an answer to is answered, once: the
// next upstream never saw it.
func TestHeldPingOutstanding(t *testing.T) {
	staged(t, relayed, kept, func(t *testing.T, s *stage) {
		s.open()
		s.upstream.mute = true
		s.client.send(ping("one"))
		s.upstream.expect("ping one")
		next := s.hold()
		s.client.expect("pong one")
		s.resume(next)
		s.client.send(text("a"))
		s.upstream.expect("text a")
		s.upstream.mute = false
		s.client.send(ping("two"))
		s.upstream.expect("ping two")
		s.client.expect("pong two")
	})
}

// An answer to the lost upstream's own ping goes to nobody.
func TestHeldPongOfTheLost(t *testing.T) {
	staged(t, relayed, kept, func(t *testing.T, s *stage) {
		s.open()
		s.client.mute = true
		s.upstream.send(ping("old"))
		s.client.expect("ping old")
		s.upstream.reset()
		s.next()
		s.client.reply(sent{h: frame.Header{Fin: true, Opcode: frame.Pong}, payload: []byte("old")})
		s.client.send(text("a"))
		s.upstream.expect("text a")
	})
}

// An upstream that is reached but finds no descriptor left is like one that is
// not: the next is dialled.
func TestHeldWithoutDescriptor(t *testing.T) {
	staged(t, relayed, kept, func(t *testing.T, s *stage) {
		s.open()
		var tries atomic.Int32
		fault := func(session *Session, at faultPoint) {
			if at == faultAttach && tries.Add(1) == 1 {
				session.upstream.Conn.Close() // it can't be duplicated, either
			}
		}
		s.fault.Store(&fault)
		next := s.hold()
		s.client.send(text("held"))
		s.resume(next)
		next.rest()
		s.next()
		s.upstream.expect("text held")
	})
}

// Messages that come while held arrive in order; behind the buffer the
// client has to wait.
func TestHeldDataWaits(t *testing.T) {
	const each, all = 16 << 10, 24 << 20 // more than sockets take
	staged(t, anyMode, lines("continuity: {hold: 60s, buffer: 64KiB, backoff: {min: 1ms, max: 10ms}}"), func(t *testing.T, s *stage) {
		s.open()
		s.client.send(text("before"))
		s.upstream.expect("text before")
		next := s.hold()
		written := make(chan error, 1)
		go func() {
			s.client.SetWriteDeadline(time.Time{})
			for i := range all / each {
				b := make([]byte, each)
				copy(b, fmt.Sprintf("%08d", i))
				if _, err := s.client.Write(s.client.encode(sent{h: frame.Header{Fin: true, Opcode: frame.Binary}, payload: b})); err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
		session := s.session()
		waitUntil(t, "the buffer is full", func() bool { return session.link.Held() >= 64<<10 })
		select {
		case err := <-written:
			t.Fatalf("the client could write %d bytes to nobody: %v", all, err)
		case <-time.After(200 * time.Millisecond):
		}
		if held := session.link.Held(); held > 64<<10+128<<10 {
			t.Errorf("%d bytes are held", held)
		}
		s.resume(next)
		for i := range all / each {
			s.upstream.SetReadDeadline(time.Now().Add(patience))
			got := readPayload(t, s.upstream)
			if want := fmt.Sprintf("%08d", i); len(got) != each || string(got[:8]) != want {
				t.Fatalf("got %d bytes that begin with %q, want message %s", len(got), got[:min(8, len(got))], want)
			}
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
		if held := session.link.Held(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
}

// readPayload reads one frame and returns its payload.
func readPayload(t *testing.T, w *wire) []byte {
	t.Helper()
	for have := 1; ; have++ {
		b, err := w.in.Peek(have)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		h, n, err := frame.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		w.in.Discard(n)
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(w.in, payload); err != nil {
			t.Fatalf("read: %v", err)
		}
		if h.Masked {
			frame.Mask(h.Key, 0, payload)
		}
		return payload
	}
}

// waitUntil polls for what no event tells.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A client that is not read any more is still seen to be gone.
func TestHeldFullReset(t *testing.T) {
	staged(t, anyMode, "continuity: {hold: 60s, buffer: 1KiB, backoff: {min: 1ms, max: 10ms}}", func(t *testing.T, s *stage) {
		s.open()
		s.hold()
		s.client.send(binary(600), binary(600), binary(600))
		session := s.session()
		waitUntil(t, "the buffer is full", func() bool { return session.link.Held() >= 1<<10 })
		s.client.reset()
		from := time.Now()
		s.over()
		if took := time.Since(from); took > 4*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if end := session.link.Ended(); end.Cause != relay.ClientGone {
			t.Errorf("ended by %v", end.Cause)
		}
	})
}

// A close behind what the buffer takes comes when there is room again, and
// one in front of it ends everything at once: see the close table.
func TestHeldMessageOfTwoHalves(t *testing.T) {
	staged(t, anyMode, kept, func(t *testing.T, s *stage) {
		s.open()
		s.client.send(text("before"), first("one"))
		s.upstream.expect("text before")
		next := s.hold()
		s.client.send(ping("between"), last("two"), text("after"))
		s.client.expect("pong between")
		s.resume(next)
		s.upstream.expect("text+ one", "cont two", "text after")
	})
}

func TestHeldKeepalive(t *testing.T) {
	staged(t, anyMode, lines(kept, "keepalive: {interval: 50ms, timeout: 10s}"), func(t *testing.T, s *stage) {
		s.open()
		next := s.hold()
		for range 3 {
			s.client.expect("ping ~")
		}
		s.resume(next)
		s.client.send(text("a"))
		for event := s.upstream.next(); event != "text a"; event = s.upstream.next() {
			if event != "ping ~" {
				t.Fatalf("got %q", event)
			}
		}
	})
}

func TestHeldIdle(t *testing.T) {
	staged(t, anyMode, lines(kept, "timeouts: {idle: 300ms, close: 2s}"), func(t *testing.T, s *stage) {
		s.open()
		s.hold()
		if got, want := s.client.rest(), []string{"close 1001 idle", "fin"}; !saw(got, want) {
			t.Errorf("client saw %q, want %q", got, want)
		}
		s.over()
		want{byStent, 1001, "idle", relay.Idle}.check(t, s)
	})
}

func TestHeldIsMeasured(t *testing.T) {
	s := newStage(t, kept, "", nil)
	s.open()
	session := s.session()
	next := s.hold()
	s.client.send(binary(1000))
	waitUntil(t, "a message is held", func() bool { return session.link.Held() > 1000 })
	if state := session.State(); state != HeldState {
		t.Errorf("state is %v", state)
	}
	if d := session.HeldFor(); d <= 0 {
		t.Errorf("held for %v", d)
	}
	if n := s.metrics()["stent_held_sessions{route=/*}"]; n != 1 {
		t.Errorf("stent_held_sessions is %v", n)
	}
	s.resume(next)
	s.upstream.expect("binary 1000B")
	waitUntil(t, "the session is open", func() bool { return session.State() == Open })
	was := session.HeldFor()
	m := s.metrics()
	if m["stent_held_sessions{route=/*}"] != 0 || m["stent_restarts_total{reason=lost,route=/*}"] != 1 {
		t.Errorf("held_sessions %v, restarts_total %v", m["stent_held_sessions{route=/*}"], m["stent_restarts_total{reason=lost,route=/*}"])
	}
	if now := session.HeldFor(); now != was {
		t.Errorf("an open session was held for %v, then %v", was, now)
	}
	if got := session.Info().Restarts; got != 1 {
		t.Errorf("%d restarts", got)
	}
}

// What the upstreams are told of the session at each dial.
func TestRedialSays(t *testing.T) {
	deflate := mode{name: "deflate", offer: []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"}, agree: []string{"Sec-WebSocket-Extensions: " + noContext}}
	declined := mode{name: "deflate declined", offer: deflate.offer}
	for _, tt := range []struct {
		mode
		subprotocol, extensions []string // of each redial
	}{
		{inRelay, nil, nil},
		{negotiated(inRelay), []string{"one"}, nil},
		{deflate, nil, []string{noContext}},
		{declined, nil, nil},
		{inDeflate, nil, []string{noContext}},
		{negotiated(inMessage), []string{"one"}, nil},
	} {
		t.Run(strings.Join(append([]string{tt.name}, tt.agree...), " "), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, lines(tt.route, kept), "", testHandlers)
			s.offer, s.agree = append(tt.offer, "X-Own: kept", "Cookie: a=b"), tt.agree
			s.open()
			first := s.upstream.request.Header
			for attempt := range 4 {
				h := s.upstream.request.Header
				if got, want := h.Get("Stent-Attempt"), fmt.Sprint(attempt+1); got != want {
					t.Errorf("attempt %s, want %s", got, want)
				}
				for _, name := range []string{"Stent-Session", "X-Own", "Cookie", "X-Request-Id", "X-Forwarded-For"} {
					if h.Get(name) != first.Get(name) || h.Get(name) == "" {
						t.Errorf("attempt %d: %s is %q, was %q", attempt+1, name, h.Get(name), first.Get(name))
					}
				}
				if attempt > 0 {
					if got := h["Sec-Websocket-Protocol"]; !slices.Equal(got, tt.subprotocol) {
						t.Errorf("offers subprotocols %q, want %q", got, tt.subprotocol)
					}
					if got := h["Sec-Websocket-Extensions"]; !slices.Equal(got, tt.extensions) {
						t.Errorf("offers extensions %q, want %q", got, tt.extensions)
					}
					if h.Get("Sec-Websocket-Key") == first.Get("Sec-Websocket-Key") {
						t.Error("the key is an old one")
					}
				}
				s.upstream.reset()
				s.next()
			}
			s.client.send(text("a"))
			s.upstream.expect("text a")
		})
	}
}

// A target that does not agree to what the client was told is passed over.
func TestRedialOfAnotherMind(t *testing.T) {
	deflate := mode{offer: []string{"Sec-WebSocket-Extensions: permessage-deflate"}, agree: []string{"Sec-WebSocket-Extensions: " + noContext}}
	for _, tt := range []struct {
		name   string
		mode   mode
		answer []string // of the target that does not suit
	}{
		{"refuses deflate", deflate, nil},
		{"deflates with context", deflate, []string{"Sec-WebSocket-Extensions: permessage-deflate"}},
		{"deflates unasked", inRelay, []string{"Sec-WebSocket-Extensions: " + noContext}},
		{"has another subprotocol", negotiated(inRelay), []string{"Sec-WebSocket-Protocol: two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.Close() })
			s := newStage(t, lines(tt.mode.route, kept), fmt.Sprintf("upstreams: {app: {targets: [\"ws://TARGET\", \"ws://%s\"], balance: round_robin, dial: {timeout: 5s}}}", other.Addr()), testHandlers)
			s.offer, s.agree = tt.mode.offer, tt.mode.agree
			s.open()
			first := s.targets
			s.upstream.reset()
			// The lost target is avoided, so the other one is asked first.
			s.targets = other
			unsuitable := s.accept()
			unsuitable.say(unsuitable.switching(tt.answer...))
			s.targets = first
			s.next()
			s.client.send(text("a"))
			s.upstream.expect("text a")
			// And where none suits there is no way on.
			s.upstream.reset()
			for _, l := range []net.Listener{other, first} {
				s.targets = l
				w := s.accept()
				w.say(w.switching(tt.answer...))
			}
			if got, want := s.client.rest(), []string{"close 1012 upstream refused the session", "fin"}; !saw(got, want) {
				t.Errorf("client saw %q, want %q", got, want)
			}
		})
	}
}

// Where stent terminates deflate, an upstream without it is as good: what
// was held or is repeated goes to it unpacked.
func TestRedialWithoutDeflate(t *testing.T) {
	long := strings.Repeat("login and more ", 20)
	rewrite := func(_ *Session, m Message) Result {
		if m.From == Client {
			return Forward(m.Type, m.Data)
		}
		return OK()
	}
	for _, tt := range []struct {
		name   string
		offer  []string
		packed bool // by the client
	}{
		{"client deflates", inDeflate.offer, true},
		{"client does not", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, lines("compression: terminate", "handlers: [own]", "continuity: {hold: 20s, backoff: {min: 1ms, max: 10ms}, replay: {first: 1}}"), "", only(rewrite))
			s.offer, s.agree = tt.offer, inDeflate.agree
			s.open()
			say := func(n int) sent {
				if tt.packed {
					return deflated([]byte(long[:n]))
				}
				return text(long[:n])
			}
			s.client.send(say(200))
			s.upstream.expect("deflated text 200B")
			next := s.hold()
			s.client.send(say(201))
			waitUntil(t, "a message is held", func() bool { return s.session().link.Held() > 0 })
			s.agree = nil
			s.resume(next)
			s.upstream.expect("text 200B", "text 201B")
			s.upstream.send(text("a"))
			s.client.expect("text a")
		})
	}
}

func TestOnCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		name, list string
		code       int
		back       bool
	}{
		{"default 1001", "", 1001, true}, {"default 1012", "", 1012, true}, {"default 1013", "", 1013, true},
		{"default 1011", "", 1011, false}, {"default 4000", "", 4000, false},
		{"own 4000", ", on_close: [4000, 1011]", 4000, true}, {"own 1011", ", on_close: [4000, 1011]", 1011, true},
		{"own 1012", ", on_close: [4000, 1011]", 1012, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "continuity: {hold: 20s, backoff: {min: 1ms, max: 10ms}"+tt.list+"}", "", nil)
			s.open()
			s.upstream.send(text("a"), closing(tt.code, "why"))
			s.client.expect("text a")
			if !tt.back {
				s.client.expect(fmt.Sprintf("close %d why", tt.code))
				return
			}
			s.next()
			s.upstream.send(text("b"))
			s.client.expect("text b")
		})
	}
}

// replayed is a script for replay.first: what the client says before each
// upstream is lost, and what that upstream gets.
func TestReplayFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		replay string
		say    [][]string
		get    [][]string
	}{
		{"a login", "{first: 1}",
			[][]string{{"login", "a"}, {"b"}, {"c"}, {}, {"d"}},
			[][]string{{"login", "a"}, {"login", "b"}, {"login", "c"}, {"login"}, {"login", "d"}}},
		{"two", "{first: 2}",
			[][]string{{"login"}, {"join", "a"}, {"b"}},
			[][]string{{"login"}, {"login", "join", "a"}, {"login", "join", "b"}}},
		{"nothing said yet", "{first: 2}",
			[][]string{{}, {"login"}, {"a"}},
			[][]string{{}, {"login"}, {"login", "a"}}},
		// Ten bytes are sixteen on the wire.
		{"within its bytes", "{first: 2, bytes: 32}",
			[][]string{{"0123456789", "abcdefghij"}, {"a"}},
			[][]string{{"0123456789", "abcdefghij"}, {"0123456789", "abcdefghij", "a"}}},
		{"beyond its bytes", "{first: 2, bytes: 31}",
			[][]string{{"0123456789", "abcdefghij", "x"}, {"a"}},
			[][]string{{"0123456789", "abcdefghij", "x"}, {"0123456789", "a"}}},
	} {
		route := "continuity: {hold: 20s, backoff: {min: 1ms, max: 10ms}, replay: " + tt.replay + "}"
		t.Run(tt.name, func(t *testing.T) {
			staged(t, anyMode, route, func(t *testing.T, s *stage) {
				s.open()
				for i := range tt.say {
					for _, m := range tt.say[i] {
						s.client.send(text(m))
					}
					for _, m := range tt.get[i] {
						s.upstream.expect("text " + m)
					}
					s.upstream.reset()
					s.next()
				}
			})
		})
	}
}

// What waited for its first upstream is not also repeated to it, and what
// an upstream has taken is repeated in front of what is held.
func TestReplayNotDoubled(t *testing.T) {
	staged(t, anyMode, "continuity: {accept_early: true, hold: 20s, backoff: {min: 1ms, max: 10ms}, replay: {first: 1}}", func(t *testing.T, s *stage) {
		s.client = s.dial()
		s.client.say(handshake("/", s.offer...))
		s.client.status()
		s.client.send(text("login"), text("a"))
		s.next()
		s.upstream.expect("text login", "text a")
		next := s.hold()
		s.client.send(text("b"))
		s.resume(next)
		s.upstream.expect("text login", "text b")
		s.client.send(text("c"))
		s.upstream.expect("text c")
	})
}

func TestHeldBeforeTheFirst(t *testing.T) {
	const early = "continuity: {accept_early: true, hold: 20s, backoff: {min: 1ms, max: 10ms}}"
	t.Run("no backend yet", func(t *testing.T) {
		staged(t, anyMode, early, func(t *testing.T, s *stage) {
			addr := s.targets.Addr().String()
			s.targets.Close()
			s.client = s.dial()
			s.client.say(handshake("/", s.offer...))
			if resp := s.client.status(); resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("answered %s", resp.Status)
			}
			s.client.send(text("a"), ping("x"), text("b"))
			s.client.expect("pong x")
			var err error
			if s.targets, err = net.Listen("tcp", addr); err != nil {
				t.Skip(err) // somebody has taken the port
			}
			t.Cleanup(func() { s.targets.Close() })
			s.next()
			if got := s.upstream.request.Header.Get("Stent-Attempt"); got != "1" {
				t.Errorf("attempt %s", got)
			}
			s.upstream.expect("text a", "text b")
			s.upstream.send(text("c"))
			s.client.expect("text c")
			s.upstream.reset()
			s.next()
			s.client.send(text("d"))
			s.upstream.expect("text d")
		})
	})
	t.Run("hold expires", func(t *testing.T) {
		staged(t, anyMode, strings.Replace(early, "20s", "200ms", 1), func(t *testing.T, s *stage) {
			s.targets.Close()
			s.client = s.dial()
			s.client.say(handshake("/", s.offer...))
			s.client.status()
			if got, want := s.client.rest(), []string{"close 1013 no upstream, try again later", "fin"}; !saw(got, want) {
				t.Errorf("client saw %q, want %q", got, want)
			}
			s.over()
			want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp}.check(t, s)
		})
	})
	t.Run("refused", func(t *testing.T) {
		staged(t, anyMode, early, func(t *testing.T, s *stage) {
			s.client = s.dial()
			s.client.say(handshake("/", s.offer...))
			s.client.status()
			s.accept().say("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
			if got, want := s.client.rest(), []string{"close 1012 upstream refused the session", "fin"}; !saw(got, want) {
				t.Errorf("client saw %q, want %q", got, want)
			}
		})
	})
	t.Run("client gone before", func(t *testing.T) {
		staged(t, anyMode, early, func(t *testing.T, s *stage) {
			s.client = s.dial()
			s.client.say(handshake("/", s.offer...))
			s.client.status()
			s.accept()
			s.client.send(closing(1000, "bye"))
			s.client.expect("close 1000 bye", "fin")
			s.over()
		})
	})
}

// A client that ends a session that is held and full is heard when there is
// room for its close; then its messages have gone first.
func TestHeldFullThenClose(t *testing.T) {
	staged(t, anyMode, "continuity: {hold: 20s, buffer: 1KiB, backoff: {min: 1ms, max: 10ms}}", func(t *testing.T, s *stage) {
		s.open()
		next := s.hold()
		s.client.send(binary(1100), binary(200))
		session := s.session()
		waitUntil(t, "the buffer is full", func() bool { return session.link.Held() >= 1<<10 })
		s.client.send(closing(3000, "done"))
		s.resume(next)
		s.upstream.expect("binary 1100B", "binary 200B", "close 3000 done")
		s.client.expect("close 3000 done", "fin")
	})
}
