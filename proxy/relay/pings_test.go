package relay

import (
	"bytes"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// What becomes of the pongs of a peer that got pings of ours and of the
// other side's, in every order. A peer may answer each ping or only the
// latest (RFC 6455 section 5.5.3).
func TestPingsCross(t *testing.T) {
	type do func(p *pings, got *[]string)
	ours := func(p *pings, _ *[]string) { p.ping(1) }
	theirs := func(s string) do {
		return func(p *pings, _ *[]string) { p.forward([]byte(s)) }
	}
	gone := func(p *pings, got *[]string) {
		if owed, ok := p.forget(); ok {
			*got = append(*got, "owed "+string(owed))
		}
	}
	pong := func(s string) do {
		return func(p *pings, got *[]string) {
			payload := []byte(s)
			if s == "ours" {
				payload = bytes.Clone(p.own[:])
			}
			kind, crossed := p.pong(payload)
			name := map[pongKind]string{pongUnasked: "unasked", pongOwn: "own", pongCrossed: "crossed", pongForwarded: "forwarded", pongStale: "stale"}[kind]
			if crossed != nil {
				name += " " + string(crossed)
			}
			*got = append(*got, name)
		}
	}
	tests := []struct {
		name    string
		do      []do
		want    []string
		waiting bool
	}{
		{"ours", []do{ours, pong("ours")}, []string{"own"}, false},
		{"ours twice, answered twice", []do{ours, ours, pong("ours"), pong("ours")}, []string{"own", "own"}, false},
		{"theirs", []do{theirs("a"), pong("a")}, []string{"forwarded"}, false},
		{"theirs without a payload", []do{theirs(""), pong("")}, []string{"forwarded"}, false},
		{"theirs, not answered", []do{theirs("a")}, nil, true},
		{"theirs answered twice", []do{theirs("a"), pong("a"), pong("a")}, []string{"forwarded", "unasked"}, false},
		{"two of theirs, both answered", []do{theirs("a"), theirs("b"), pong("a"), pong("b")}, []string{"unasked", "forwarded"}, false},
		{"two of theirs, the latest answered", []do{theirs("a"), theirs("b"), pong("b")}, []string{"forwarded"}, false},
		{"two of theirs, the first answered yet", []do{theirs("a"), theirs("b"), pong("a")}, []string{"unasked"}, true},
		{"ours, then theirs, both answered", []do{ours, theirs("a"), pong("ours"), pong("a")}, []string{"own", "forwarded"}, false},
		{"ours, then theirs, the latest answered", []do{ours, theirs("a"), pong("a")}, []string{"forwarded"}, false},
		{"theirs, then ours, both answered", []do{theirs("a"), ours, pong("a"), pong("ours")}, []string{"forwarded", "own"}, false},
		{"theirs, then ours, the latest answered", []do{theirs("a"), ours, pong("ours")}, []string{"crossed a"}, false},
		{"theirs, then ours, the latest answered, then theirs", []do{theirs("a"), ours, pong("ours"), pong("a")}, []string{"crossed a", "unasked"}, false},
		{"theirs, ours, theirs, the latest answered", []do{theirs("a"), ours, theirs("b"), pong("b")}, []string{"forwarded"}, false},
		{"theirs, ours, theirs, ours answered", []do{theirs("a"), ours, theirs("b"), pong("ours"), pong("b")}, []string{"own", "forwarded"}, false},
		{"a pong nobody asked for", []do{pong("x")}, []string{"unasked"}, false},
		{"a pong of zeros before any ping", []do{pong("\x00\x00\x00\x00\x00\x00\x00\x00")}, []string{"unasked"}, false},
		{"their side is lost", []do{theirs("a"), gone, pong("a")}, []string{"owed a", "stale"}, false},
		{"their side is lost twice", []do{theirs("a"), gone, gone}, []string{"owed a"}, true},
		{"their side is lost, answered", []do{theirs("a"), pong("a"), gone}, []string{"forwarded"}, false},
		{"their side is lost before our ping", []do{theirs("a"), gone, ours, pong("ours")}, []string{"owed a", "own"}, false},
		{"their side is lost, the next one pings", []do{theirs("a"), gone, theirs("b"), pong("b")}, []string{"owed a", "forwarded"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p pings
			var got []string
			for _, f := range tt.do {
				f(&p, &got)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if p.waiting() != tt.waiting {
				t.Errorf("waiting: got %v, want %v", p.waiting(), tt.waiting)
			}
		})
	}
}

func TestOwnPingsDiffer(t *testing.T) {
	var a, b pings
	if bytes.Equal(a.ping(1), b.ping(1)) {
		t.Error("two legs ping with the same payload")
	}
	if first := bytes.Clone(a.own[:]); !bytes.Equal(first, a.ping(2)) {
		t.Error("a leg's payload changes, so that a late pong is not known")
	}
}

// When a leg is pinged, and when its peer is held to be gone.
func TestKeepalive(t *testing.T) {
	const sec = instant(time.Second)
	k := Keepalive{Interval: 30 * time.Second, Timeout: 10 * time.Second}
	at := func(s int) instant { return 1000*sec + instant(s)*sec }
	type look struct {
		at     int
		heard  int // a frame came then; -1 is none
		next   int // when to look again
		silent bool
		pings  uint64 // ours so far
	}
	tests := []struct {
		name    string
		forward int // a ping of the other side goes there; -1 is none
		looks   []look
	}{
		{"busy", -1, []look{{0, 0, 30, false, 0}, {25, 20, 50, false, 0}, {49, 49, 79, false, 0}}},
		{"silent", -1, []look{{0, 0, 30, false, 0}, {30, -1, 40, false, 1}, {35, -1, 40, false, 1}, {40, -1, 0, true, 1}}},
		{"late to look", -1, []look{{0, 0, 30, false, 0}, {100, -1, 110, false, 1}, {110, -1, 0, true, 1}}},
		{"answers", -1, []look{{0, 0, 30, false, 0}, {30, -1, 40, false, 1}, {40, 31, 61, false, 1}, {61, -1, 71, false, 2}, {71, -1, 0, true, 2}}},
		{"a forwarded ping stands for ours", 5, []look{{0, 0, 30, false, 0}, {30, -1, 40, false, 0}, {40, -1, 0, true, 0}}},
		{"a forwarded ping, and something came", 5, []look{{0, 0, 30, false, 0}, {30, 6, 36, false, 0}, {36, -1, 46, false, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			own, _ := unixPair(t)
			l := newLeg(own, nil, Client, quickPolicy)
			if tt.forward >= 0 {
				l.pings.forward([]byte("p"))
			}
			for _, s := range tt.looks {
				if s.heard >= 0 {
					l.heard.Store(int64(at(s.heard)))
				}
				next, silent := l.keepalive(k, at(s.at))
				want := at(s.next)
				if s.next == 0 {
					want = 0
				}
				if next != want || silent != s.silent || l.pings.sent != s.pings {
					t.Errorf("at %d: got %s, silent %v, %d pings; want %d, %v, %d", s.at, time.Duration(next-at(0)), silent, l.pings.sent, s.next, s.silent, s.pings)
				}
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		own, _ := tcpPair(t)
		l := newLeg(own, nil, Client, quickPolicy)
		if next, silent := l.keepalive(Keepalive{}, now().add(time.Hour)); next != 0 || silent {
			t.Errorf("got %d, %v", next, silent)
		}
	})
}

// Pings go from end to end in relay mode, stent's own are seen by the
// pinged side alone.
func TestPingsOnTheWire(t *testing.T) {
	t.Run("relay", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(nil)}, tcpPair, nil)
		c, u := r.client, r.attach()
		c.say(c.frame(true, frame.Ping, "from the client"))
		u.expect(heard{frame.Ping, "from the client"})
		u.say(u.frame(true, frame.Pong, "from the client"))
		c.expect(heard{frame.Pong, "from the client"})
		u.say(u.frame(true, frame.Ping, "from the upstream"))
		c.expect(heard{frame.Ping, "from the upstream"})
		c.say(c.frame(true, frame.Pong, "from the upstream"), c.frame(true, frame.Pong, "unasked"))
		u.expect(heard{frame.Pong, "from the upstream"}, heard{frame.Pong, "unasked"})
		if n := r.link.Counters[Client].Pings.Load() + r.link.Counters[Upstream].Pings.Load(); n != 2 {
			t.Errorf("counted %d pings, want 2", n)
		}
	})
	t.Run("message mode", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(assembling)}, tcpPair, nil)
		c, u := r.client, r.attach()
		c.say(c.frame(true, frame.Ping, "one"), c.frame(true, frame.Pong, "unasked"))
		c.expect(heard{frame.Pong, "one"})
		u.say(u.frame(true, frame.Ping, "two"), u.frame(true, frame.Pong, "unasked"))
		u.expect(heard{frame.Pong, "two"})
	})
	t.Run("ours", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) { p.Keepalive = Keepalive{30 * time.Millisecond, patience} })}, tcpPair, nil)
		c, u := r.client, r.attach()
		for _, p := range []*peer{c, u} {
			h, _ := p.next()
			if h.op != frame.Ping || len(h.payload) != 8 {
				t.Fatalf("the %s got %v, want a ping of 8 bytes", p.side, h)
			}
			p.say(p.frame(true, frame.Pong, h.payload))
		}
		c.say(c.text("hello"))
		for { // further pings may come before it, the pongs never
			h, _ := u.next()
			if h.op == frame.Text {
				break
			}
			if h.op != frame.Ping {
				t.Fatalf("the upstream got %v", h)
			}
		}
	})
	t.Run("held", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
		c, u := r.client, r.attach()
		c.say(c.frame(true, frame.Ping, "outstanding"))
		u.expect(heard{frame.Ping, "outstanding"})
		u.say(u.frame(true, frame.Ping, "of the lost one"))
		c.expect(heard{frame.Ping, "of the lost one"})
		u.Close()
		r.loss()
		c.expect(heard{frame.Pong, "outstanding"})
		c.say(c.frame(true, frame.Ping, "while held"))
		c.expect(heard{frame.Pong, "while held"})
		b := r.attach()
		c.say(c.frame(true, frame.Pong, "of the lost one"), c.frame(true, frame.Ping, "again"))
		b.expect(heard{frame.Ping, "again"}) // the late pong is nobody's
		b.say(b.frame(true, frame.Pong, "again"))
		c.expect(heard{frame.Pong, "again"})
	})
	t.Run("between fragments", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(nil)}, tcpPair, nil)
		c, u := r.client, r.attach()
		u.say(u.frame(false, frame.Text, "a"), u.frame(true, frame.Ping, "p"))
		c.expect(heard{frame.Ping, "p"})
		// A push waits for the message's end, whatever comes between.
		if got := r.link.Push(Client, frame.Text, []byte("pushed")); got != Written {
			t.Errorf("got %d, want Written", got)
		}
		u.say(u.frame(true, frame.Ping, "q"), u.frame(true, frame.Continuation, "b"))
		c.expect(heard{frame.Ping, "q"}, text("ab"), text("pushed"))
	})
}

// A ping that its peer is no longer there to take is answered once, by who
// fails to forward it or by who gives the peer up.
func TestPingToLostPeer(t *testing.T) {
	own, far := tcpPair(t)
	far.Close()
	l := &Link{}
	lost := newLeg(own, nil, Upstream, quickPolicy)
	own.Close()
	payload := []byte("there?")
	ping := appendFrame(nil, frame.Ping, payload, true, 0)
	if l.forwardPing(lost, ping, payload) {
		t.Error("a ping to a lost peer counts as forwarded")
	}
	if owed, ok := lost.pings.forget(); ok {
		t.Errorf("pong %q is owed a second time", owed)
	}

	lost.pings.forward(payload)
	if _, ok := lost.pings.forget(); !ok {
		t.Error("no pong is owed for an outstanding ping")
	}
	if lost.pings.recall() {
		t.Error("a pong is owed a second time")
	}
}

// A peer that has answered is not silent, though nobody has come to read it.
func TestUnreadPeerIsNotSilent(t *testing.T) {
	eachPair(t, func(t *testing.T, p pair) {
		own, peer := p(t)
		l := newLeg(own, nil, Client, quickPolicy)
		k := Keepalive{time.Second, time.Second}
		pinged := now().add(k.Interval)
		if _, silent := l.keepalive(k, pinged); silent {
			t.Fatal("silent before it was pinged")
		}
		late := pinged.add(2 * k.Timeout)
		if _, silent := l.keepalive(k, late); !silent {
			t.Error("not silent")
		}
		if _, err := peer.Write([]byte("pong")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, l.unread)
		if next, silent := l.keepalive(k, late); silent || next <= late {
			t.Errorf("got %v, silent %v, want it to be looked at again", next, silent)
		}
	})
}

// answering returns what the peer gets next beside pings, which it answers.
func answering(p *peer) heard {
	for {
		h, ok := p.next()
		if !ok || h.op != frame.Ping {
			return h
		}
		p.say(p.frame(true, frame.Pong, h.payload))
	}
}

// A peer is not silent that can't have got our ping: it waits for the end of
// a frame, behind what the peer has not taken, or in the system's own buffer.
func TestPingBehindLongFrame(t *testing.T) {
	pinged := newPolicy(func(p *Policy) { p.Keepalive = Keepalive{100 * time.Millisecond, 2 * time.Second} })
	long := strings.Repeat("l", 200_000)
	onEachEngine(t, "the sender is slow", func(t *testing.T, s Session, p pair) {
		t.Parallel()
		s.Policy = pinged
		s.Inspector = inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		line := time.NewTicker(100 * time.Millisecond) // 4 s in all
		defer line.Stop()
		said := background(func() {
			for part := range slices.Chunk(c.text(long), 5_000) {
				<-line.C
				c.say(part)
			}
		})
		if h := answering(u); h != text(long) {
			t.Errorf("the upstream got %v, the end is %v", h, r.link.Ended())
		}
		<-said
	})
	for _, engine := range []string{"pump", "loop"} {
		start := func(t *testing.T, client pair) *rig {
			s := Session{Policy: pinged}
			if engine == "loop" {
				s.Loops = startLoops(t, 1)
			}
			r := newRig(t, s, client, nil)
			r.pair = tcpPair
			return r
		}
		hears := func(t *testing.T, r *rig) {
			u := r.attach()
			said := background(func() { u.say(u.text(long)) })
			answered := background(func() {
				for h, ok := u.next(); ok; h, ok = u.next() {
					u.Write(u.frame(true, frame.Pong, h.payload)) // until it is closed
				}
			})
			if h := answering(r.client); h != text(long) {
				t.Errorf("the client got %v", h)
			}
			if end := r.link.Ended(); end != nil {
				t.Errorf("ended: %v", end.Cause)
			}
			<-said
			u.Close()
			<-answered
		}
		t.Run("the receiver is slow/"+engine, func(t *testing.T) {
			t.Parallel()
			hears(t, start(t, func(testing.TB) (own, peer net.Conn) {
				own, peer = tightPair()
				return own, slow{peer, 200 * time.Millisecond} // 5 s in all
			}))
		})
		t.Run("the line is slow/"+engine, func(t *testing.T) {
			if runtime.GOOS != "linux" {
				t.Skip("what a peer has acknowledged is known on Linux alone")
			}
			t.Parallel()
			hears(t, start(t, func(t testing.TB) (own, peer net.Conn) {
				own, peer = tcpPair(t)
				own.(*net.TCPConn).SetWriteBuffer(4 << 20)
				peer.(*net.TCPConn).SetReadBuffer(8 << 10)
				return own, slow{peer, 200 * time.Millisecond}
			}))
		})
	}
}

// A ping that waits excuses nobody who has stopped, nor one that has it.
func TestSilentBesideFrames(t *testing.T) {
	policy := newPolicy(func(p *Policy) {
		quickClose(p)
		p.Timeouts.Write = 0
		p.Keepalive = Keepalive{300 * time.Millisecond, time.Second}
	})
	long := strings.Repeat("l", 200_000)
	for name, play := range map[string]func(t *testing.T, r *rig, u, c *peer){
		"both stop inside one": func(t *testing.T, r *rig, u, c *peer) {
			c.say(c.text(long)[:150_000])
			u.say(u.text(long)[:150_000])
			soon(t, r.link.Done(), "the end")
		},
		"the other side goes on": func(t *testing.T, r *rig, u, c *peer) {
			for heard := (heard{op: frame.Text}); heard.op == frame.Text || heard.op == frame.Ping; heard, _ = c.next() {
				if heard.op == frame.Text {
					u.say(u.text("on and on"))
				}
			}
			u.Close()
			c.Close()
			r.over(ClientSilent)
		},
	} {
		onEachEngine(t, name, func(t *testing.T, s Session, p pair) {
			t.Parallel()
			s.Policy = policy
			s.Inspector = inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
			r := newRig(t, s, p, nil)
			play(t, r, r.attach(), r.client)
		})
	}
}
