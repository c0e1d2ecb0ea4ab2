package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// Whatever is sent, in whatever pieces, arrives on the other side: in relay
// mode byte for byte.
func TestEchoBothWays(t *testing.T) {
	modes := map[string]func(*Policy){
		"relay":      nil,
		"continuity": func(p *Policy) { holding(p); p.Continuity.Whole = 3000 },
		"message":    assembling,
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			eachPair(t, func(t *testing.T, p pair) {
				echoBothWays(t, p, newPolicy(mode), uint64(len(name)))
			})
		})
	}
}

func echoBothWays(t *testing.T, p pair, policy *Policy, seed uint64) {
	passing := inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
	link := New(Session{Policy: policy, Inspector: passing, Sizes: [2]*Sizes{new(Sizes), new(Sizes)}})
	cOwn, c := p(t)
	uOwn, u := p(t)
	rnd := rand.New(rand.NewPCG(seed, 3))
	up, down := textless(randomStream(rnd, 60, 3000, true)), textless(randomStream(rnd, 60, 3000, false))
	// Some of each stream is there before the Link is.
	earlyUp, earlyDown := min(1000, len(up.bytes)), min(3000, len(down.bytes))
	if err := link.Attach(uOwn, down.bytes[:earlyDown], false, false); err != nil {
		t.Fatal(err)
	}
	link.Start(cOwn, up.bytes[:earlyUp])
	var ends sync.WaitGroup
	ends.Go(func() {
		if loss := link.Run(); loss != nil {
			t.Errorf("lost: %v", loss)
		}
		link.Finish()
	})
	send := func(w io.Writer, b []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		for len(b) > 0 {
			n := min(len(b), 1+rnd.IntN(5000))
			if _, err := w.Write(b[:n]); err != nil {
				t.Error(err)
				return
			}
			b = b[n:]
		}
	}
	// In message mode pings are answered, and so are not among what comes.
	receive := func(r io.Reader, s stream, masked bool) {
		want := s.bytes
		if !policy.Assemble && policy.Continuity == nil {
			got := make([]byte, len(want))
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got other bytes (%v)", err)
			}
			return
		}
		var data int
		p := peerReader{scan: frame.Scanner{Masked: masked}}
		buf := make([]byte, 10000)
		for len(p.messages) < len(s.messages) {
			n, err := r.Read(buf)
			p.feed(buf[:n])
			if err != nil || p.err != nil {
				t.Errorf("after %d messages: %v, %v", len(p.messages), err, p.err)
				return
			}
		}
		for i, m := range p.messages {
			data += len(m)
			if int64(len(m)) != s.messages[i].size {
				t.Errorf("message %d has %d bytes, want %d", i, len(m), s.messages[i].size)
			}
		}
	}
	ends.Go(func() { send(c, up.bytes[earlyUp:], 1) })
	ends.Go(func() { send(u, down.bytes[earlyDown:], 2) })
	var received sync.WaitGroup
	received.Go(func() { receive(u, up, true) })
	received.Go(func() { receive(c, down, false) })
	soon(t, background(received.Wait), "both streams")
	for side, s := range map[Side]stream{Client: up, Upstream: down} {
		if got := link.Counters[side].Messages(); got != uint64(len(s.messages)) {
			t.Errorf("the %s's messages: counted %d, want %d", side, got, len(s.messages))
		}
	}
	link.End(End{Cause: Draining})
	c.Close()
	u.Close()
	soon(t, background(ends.Wait), "the session's end")
}

// textless makes every message binary, so that message mode takes it.
func textless(s stream) stream {
	for at := 0; at < len(s.bytes); {
		h, n, _ := frame.ParseHeader(s.bytes[at:])
		if h.Opcode == frame.Text {
			s.bytes[at]++
		}
		at += n + int(h.Length)
	}
	return s
}

// What each verdict of an Inspector does, for messages of both sides, with
// and without compression on either leg.
func TestVerdicts(t *testing.T) {
	long := strings.Repeat("compress me ", 50)
	tests := []struct {
		say           string
		onward, reply []heard
	}{
		{"ok", []heard{text("ok")}, nil},
		{"ok " + long, []heard{text("ok " + long)}, nil},
		{"drop", nil, nil},
		{"forward", []heard{{frame.Binary, "other"}}, nil},
		{"forward long", []heard{{frame.Binary, long}}, nil},
		{"reply", nil, []heard{text("answer")}},
		{"reply long", nil, []heard{text(long)}},
	}
	inspect := inspector(func(from Side, typ frame.Opcode, data []byte) Result {
		switch string(data) {
		case "drop":
			return Result{Verdict: Drop}
		case "forward":
			return Result{Verdict: Forward, Type: frame.Binary, Data: []byte("other")}
		case "forward long":
			return Result{Verdict: Forward, Type: frame.Binary, Data: []byte(long)}
		case "reply":
			return Result{Verdict: Reply, Type: frame.Text, Data: []byte("answer")}
		case "reply long":
			return Result{Verdict: Reply, Type: frame.Text, Data: []byte(long)}
		}
		return Result{}
	})
	for _, deflate := range []struct {
		name             string
		client, upstream bool
	}{{"plain", false, false}, {"client deflates", true, false}, {"upstream deflates", false, true}, {"both deflate", true, true}} {
		t.Run(deflate.name, func(t *testing.T) {
			link := New(Session{Policy: newPolicy(assembling), Inspector: inspect})
			cOwn, cFar := tcpPair(t)
			uOwn, uFar := tcpPair(t)
			c, u := newPeer(t, cFar, Client), newPeer(t, uFar, Upstream)
			c.inflate(deflate.client)
			u.inflate(deflate.upstream)
			link.Attach(uOwn, nil, deflate.upstream, deflate.upstream)
			link.Agree(0, deflate.client)
			link.Start(cOwn, nil)
			ended := background(func() { link.Run(); link.Finish() })
			for _, way := range []struct {
				from, to *peer
				deflate  bool
			}{{c, u, deflate.client}, {u, c, deflate.upstream}} {
				for _, tt := range tests {
					for _, packed := range []bool{false, way.deflate} {
						way.from.say(encode(nil, frame.Text, []byte(tt.say), way.from == c, packed))
						way.to.expect(tt.onward...)
						way.from.expect(tt.reply...)
					}
				}
				way.from.say(way.from.text("last"))
				way.to.expect(text("last"))
			}
			link.End(End{Cause: Draining})
			c.Close()
			u.Close()
			soon(t, ended, "the session's end")
		})
	}
}

// inflate lets a peer read compressed messages.
func (p *peer) inflate(on bool) {
	if on {
		p.read.scan.Rsv = frame.Rsv1
	}
	tell := p.read.on
	p.read.on = func(op frame.Opcode, payload []byte) {
		if !op.Control() && p.read.scan.Deflated() {
			var plain gathered
			if err := inflate(&plain, payload, 1<<20); err != nil {
				p.t.Errorf("the %s can't inflate what it got: %v", p.side, err)
			}
			payload = plain.bytes()
		}
		tell(op, payload)
	}
}

// A compressed message is bounded by what it holds, and what is no deflate
// stream ends the session.
func TestInflateIsBounded(t *testing.T) {
	bomb := encode(nil, frame.Text, bytes.Repeat([]byte("0"), 10<<20), true, true)
	garbage := appendFrame(nil, frame.Text, bytes.Repeat([]byte{0xff}, 100), true, frame.Rsv1)
	for name, tt := range map[string]struct {
		say  []byte
		want heard
	}{"bomb": {bomb, closed(1009, "")}, "garbage": {garbage, closed(1007, "message can't be inflated")}} {
		t.Run(name, func(t *testing.T) {
			policy := newPolicy(assembling)
			policy.MessageSize = 1 << 20
			passing := inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
			r := newRig(t, Session{Policy: policy, Inspector: passing, Deflate: true}, tcpPair, nil)
			u := r.attach()
			r.client.say(tt.say)
			r.client.expect(tt.want)
			u.expect(closed(1001, ""))
		})
	}
}

// The first messages are repeated to each further upstream, before those
// that were held, if they can all be kept.
func TestReplay(t *testing.T) {
	t.Run("first two", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
			holding(p)
			p.Continuity.ReplayFirst, p.Continuity.ReplayBytes = 2, 1000
		})}, tcpPair, nil)
		c, a := r.client, r.attach()
		c.say(c.text("login"), c.frame(false, frame.Text, "sub"), c.frame(true, frame.Continuation, "scribe"), c.text("more"))
		a.expect(text("login"), text("subscribe"), text("more"))
		for range 3 {
			a.Close()
			r.loss()
			c.say(c.text("held"))
			waitFor(t, func() bool { return r.link.Held() > 0 })
			a = r.attach()
			a.expect(text("login"), text("subscribe"), text("held"))
		}
	})
	t.Run("one does not fit", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
			holding(p)
			p.Continuity.ReplayFirst, p.Continuity.ReplayBytes = 3, 30
		})}, tcpPair, nil)
		c, a := r.client, r.attach()
		c.say(c.text("login"), c.text("one that is much too long"), c.text("x"))
		a.expect(text("login"), text("one that is much too long"), text("x"))
		a.Close()
		r.loss()
		b := r.attach()
		c.say(c.text("next"))
		b.expect(text("login"), text("next"))
	})
	t.Run("held before the first upstream", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
			holding(p)
			p.Continuity.ReplayFirst, p.Continuity.ReplayBytes = 1, 1000
		})}, tcpPair, nil)
		r.client.say(r.client.text("login"))
		waitFor(t, func() bool { return r.link.Held() > 0 })
		a := r.attach()
		a.expect(text("login"))
		a.Close()
		r.loss()
		b := r.attach()
		b.expect(text("login"))
	})
}

// A held client whose buffer is full waits in its socket, and goes on with
// all it said.
func TestHoldWaits(t *testing.T) {
	r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
		holding(p)
		p.Continuity.Buffer = 1000
	})}, tcpPair, nil)
	c := r.client
	const count = 8000 // what a peer keeps that is not asked
	sent := background(func() {
		for i := range count {
			c.say(c.text(fmt.Sprint("message ", i)))
		}
	})
	waitFor(t, func() bool { return r.link.Held() >= 1000 })
	if held := r.link.Held(); held > 1000+2*largeBuffer {
		t.Errorf("%d bytes are held", held)
	}
	u := r.attach()
	for i := range count {
		u.expect(text(fmt.Sprint("message ", i)))
	}
	soon(t, sent, "the client's messages")
	if held := r.link.Held(); held != 0 {
		t.Errorf("%d bytes are held yet", held)
	}
}

// An upstream is left between two messages, and said so.
func TestMove(t *testing.T) {
	long := strings.Repeat("x", 300)
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
		c, a := r.client, r.attach()
		if !r.link.Move() || r.link.Move() {
			t.Error("a Move, and then a second one: want one to begin")
		}
		a.expect(closed(1001, ""))
		a.say(a.text("last"), a.closing(1001, ""))
		c.expect(text("last"))
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
		if r.link.Move() {
			t.Error("a Move without an upstream began")
		}
		c.say(c.text("held"))
		b := r.attach()
		b.expect(text("held"))
	})
	t.Run("inside a large client message", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
		c, a := r.client, r.attach()
		c.say(c.text(long)[:100])
		waitFor(t, func() bool { return a.wireBytes() > 0 })
		r.link.Move()
		c.say(c.text(long)[100:], c.text("next"))
		a.expect(text(long), closed(1001, ""))
		a.Close()
		r.loss()
		b := r.attach()
		b.expect(text("next"))
	})
	t.Run("an upstream that does not answer", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) { holding(p); quickClose(p) })}, tcpPair, nil)
		c, a := r.client, r.attach()
		r.link.Move()
		a.expect(closed(1001, ""))
		c.say(c.text("held"))
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
		b := r.attach()
		b.expect(text("held"))
	})
}

// An upstream that was told that it is left is not pinged any more, and so not
// found silent.
func TestMoveFromSilence(t *testing.T) {
	onEachEngine(t, "silent", func(t *testing.T, s Session, p pair) {
		t.Parallel()
		const interval = 200 * time.Millisecond
		s.Policy = newPolicy(func(p *Policy) {
			holding(p)
			p.Keepalive = Keepalive{interval, 2 * interval}
			p.Timeouts.Close = 6 * interval
		})
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		stop := make(chan struct{})
		alive := background(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(interval / 2):
					c.say(c.frame(true, frame.Pong, ""))
				}
			}
		})
		t.Cleanup(func() {
			close(stop)
			<-alive
		})
		r.link.Move()
		u.expect(closed(1001, ""))
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
	})
}

// A client that closes while its upstream is being left gets its own close
// frame back: what that upstream answers is not meant for it.
func TestMoveCrossesClose(t *testing.T) {
	onEachEngine(t, "close", func(t *testing.T, s Session, p pair) {
		for mode, change := range map[string]func(*Policy){"relay": holding, "message": func(p *Policy) { holding(p); assembling(p) }} {
			t.Run(mode, func(t *testing.T) {
				s.Policy = newPolicy(change)
				s.Inspector = inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
				r := newRig(t, s, p, nil)
				u, c := r.attach(), r.client
				c.say(c.text("first"))
				u.expect(text("first"))
				r.link.Move()
				u.expect(closed(1001, ""))
				c.say(c.closing(4000, "bye"))
				waitFor(t, func() bool {
					r.link.mu.Lock()
					defer r.link.mu.Unlock()
					return r.link.farewell != nil
				})
				u.say(u.text("last"), u.closing(1001, ""))
				c.expect(text("last"), closed(4000, "bye"))
				u.Close()
				r.over(ClientClosed)
				if r.end.Code != 4000 || r.end.Reason != "bye" {
					t.Errorf("ended with %d %q, want the client's own", r.end.Code, r.end.Reason)
				}
			})
		}
	})
}

// What an upstream has said before it is left is read to its end, however long
// the client takes.
func TestMoveBehindSlowClient(t *testing.T) {
	onEachEngine(t, "slow", func(t *testing.T, s Session, p pair) {
		t.Parallel()
		const small, large = 10000, 5000 // the client's peer stands still behind the first
		payload := strings.Repeat("x", 4<<10)
		s.Policy = newPolicy(func(p *Policy) { holding(p); p.Timeouts.Close = 2 * time.Second })
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		said := background(func() {
			u.say(bytes.Repeat(u.text("x"), small), bytes.Repeat(u.text(payload), large), u.text("last"))
		})
		var moved uint64
		since := time.Now()
		waitFor(t, func() bool { // the client takes nothing
			if n := r.link.Counters[Upstream].Text.Load(); n != moved {
				moved, since = n, time.Now()
			}
			return moved > small && time.Since(since) > 500*time.Millisecond
		})
		r.link.Move()
		time.Sleep(r.link.Policy.Timeouts.Close * 5 / 4) // what falls due meanwhile is what is tested
		for range small + large {
			if h, ok := c.next(); !ok || h.op != frame.Text {
				t.Fatalf("the client got %v, %v", h, ok)
			}
		}
		<-said
		c.expect(text("last"))
		u.expect(closed(1001, ""))
		u.say(u.closing(1001, ""))
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
	})
}

// An upstream that goes on and on after it was told is left all the same,
// though its client is always behind.
func TestMoveFromFlood(t *testing.T) {
	onEachEngine(t, "flood", func(t *testing.T, s Session, p pair) {
		t.Parallel()
		s.Policy = newPolicy(func(p *Policy) {
			holding(p)
			p.Timeouts.Close, p.Timeouts.Write = 200*time.Millisecond, 3*time.Second
		})
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		own := c.Conn
		if secure, ok := own.(*tls.Conn); ok {
			own = secure.NetConn()
		}
		own.(*net.TCPConn).SetReadBuffer(32 << 10) // it is slow, and never stands still
		chunk := bytes.Repeat(u.text(strings.Repeat("on", 30)), 1000)
		flood := background(func() {
			for {
				if _, err := u.Write(chunk); err != nil {
					return
				}
			}
		})
		for range 20000 { // the client is behind
			c.next()
		}
		r.link.Move()
		for n, patient := 0, time.After(patience); ; n++ {
			if n%500 == 0 {
				time.Sleep(time.Millisecond)
			}
			select {
			case l := <-r.lost:
				if l.Cause != LossMoved {
					t.Errorf("got %v, want LossMoved", l)
				}
				u.Close()
				<-flood
				return
			case _, ok := <-c.got:
				if !ok {
					t.Fatalf("the client was disconnected: %v", r.link.Ended())
				}
			case <-patient:
				t.Fatal("the upstream is not left")
			}
		}
	})
}

// An upstream that is left inside a message which its client has a part of may
// end that message, however long it takes, as long as it goes on.
func TestMoveInsideDownload(t *testing.T) {
	part := strings.Repeat("p", 200)
	impatient := newPolicy(func(p *Policy) {
		holding(p)
		p.Timeouts.Close, p.Timeouts.Write = 100*time.Millisecond, 1500*time.Millisecond
	})
	begin := func(t *testing.T, s Session, p pair) (r *rig, u, c *peer) {
		t.Parallel()
		s.Policy = impatient
		r = newRig(t, s, p, nil)
		u, c = r.attach(), r.client
		u.say(u.frame(false, frame.Binary, part))
		waitFor(t, func() bool { return c.total.Load() > 0 })
		r.link.Move()
		u.expect(closed(1001, ""))
		return r, u, c
	}
	onEachEngine(t, "it ends", func(t *testing.T, s Session, p pair) {
		r, u, c := begin(t, s, p)
		const parts = 40 // in more than timeouts.write
		for range parts {
			time.Sleep(50 * time.Millisecond)
			u.say(u.frame(false, frame.Continuation, part))
		}
		u.say(u.frame(true, frame.Continuation, part), u.text("one more"))
		c.expect(heard{frame.Binary, strings.Repeat(part, parts+2)})
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
		b := r.attach()
		b.say(b.text("here I am"))
		c.expect(text("here I am"))
	})
	onEachEngine(t, "the next begins at once", func(t *testing.T, s Session, p pair) {
		r, u, c := begin(t, s, p)
		flood := background(func() {
			b := slices.Concat(u.frame(false, frame.Continuation, part), u.frame(true, frame.Continuation, part), u.frame(false, frame.Binary, part))
			for {
				if _, err := u.Write(b); err != nil {
					return
				}
			}
		})
		stop := make(chan struct{})
		read := background(func() {
			for {
				select {
				case h, ok := <-c.got:
					if !ok || h.payload != strings.Repeat(part, 3) {
						t.Errorf("the client got %v, %v", h, ok)
						return
					}
				case <-stop:
					return
				}
			}
		})
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
		u.Close()
		<-flood
		close(stop)
		<-read
	})
	onEachEngine(t, "it stands still", func(t *testing.T, s Session, p pair) {
		r, u, c := begin(t, s, p)
		began := time.Now()
		pings := background(func() { // which are nothing of the message
			for {
				time.Sleep(50 * time.Millisecond)
				if _, err := u.Write(u.frame(true, frame.Ping, "alive")); err != nil {
					return
				}
			}
		})
		c.expectReset()
		if took := time.Since(began); took < impatient.Timeouts.Write/2 {
			t.Errorf("it had %v, want timeouts.write", took)
		}
		r.over(UpstreamTorn)
		<-pings
	})
	t.Run("its client is slow", func(t *testing.T) {
		t.Parallel()
		s := Session{Policy: impatient, Loops: startLoops(t, 1)} // on the pump it would have to take more at once
		r := newRig(t, s, func(testing.TB) (own, peer net.Conn) {
			own, peer = tightPair()
			return own, slow{peer, 400 * time.Millisecond}
		}, nil)
		r.pair = tcpPair
		u, c := r.attach(), r.client
		long := strings.Repeat("l", 3*loopBuffer)
		said := background(func() { u.say(u.text(long)) })
		waitFor(t, func() bool { return c.total.Load() > 0 })
		r.link.Move()
		c.expect(text(long))
		<-said
		if l := r.loss(); l.Cause != LossMoved {
			t.Errorf("got %v, want LossMoved", l)
		}
	})
}

// slow is a connection of which 8 KiB are read at each pause.
type slow struct {
	net.Conn
	pause time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Conn.Read(p[:min(len(p), 8<<10)])
}

// A rate that makes the client wait does not keep the rest of its session
// waiting.
func TestSlowedClient(t *testing.T) {
	slow := func(p *Policy) { p.Rate = Rate{Messages: 1e-3, Burst: time.Second} }
	t.Run("a new upstream", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
			holding(p)
			slow(p)
			p.Continuity.ReplayFirst, p.Continuity.ReplayBytes = 1, 100
		})}, tcpPair, nil)
		c, a := r.client, r.attach()
		c.say(c.text("login"), c.text("later"))
		a.expect(text("login"))
		a.Close()
		r.loss()
		b := r.attach()
		b.expect(text("login"))
	})
	t.Run("lifetime", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(func(p *Policy) { slow(p); p.Timeouts.Lifetime = 50 * time.Millisecond })}, tcpPair, nil)
		c, u := r.client, r.attach()
		c.say(c.text("one"), c.text("later"))
		u.expect(text("one"), closed(1001, ""))
		c.expect(closed(1001, ""))
	})
	t.Run("a client that is gone", func(t *testing.T) {
		r := newRig(t, Session{Policy: newPolicy(slow)}, tcpPair, nil)
		c, u := r.client, r.attach()
		c.say(c.text("one"), c.text("later"))
		u.expect(text("one"))
		c.reset()
		u.expect(closed(1001, ""))
		u.Close()
		r.over(ClientGone)
	})
}

// A naive echo backend stops reading while it writes. A client that reads
// what it gets must not be stuck with it, whatever is asked of the legs.
func TestNoDeadlockWithNaivePeers(t *testing.T) {
	r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
	own, far := tcpPair(t)
	r.next <- own
	<-r.joined
	echo := background(func() { io.Copy(struct{ io.Writer }{far}, unmasking{far}) })
	c := r.client
	const count, size = 400, 50
	sent := background(func() {
		for range count {
			c.say(c.text(strings.Repeat("e", size)))
		}
	})
	for i := range count {
		if i == count/2 {
			r.link.Push(Upstream, frame.Text, []byte("pushed"))
			r.link.Push(Client, frame.Text, []byte("pushed"))
		}
		if _, ok := c.next(); !ok {
			t.Fatal("disconnected")
		}
	}
	soon(t, sent, "the client's messages")
	far.Close()
	soon(t, echo, "the echo")
}

// unmasking turns small masked frames into a server's.
type unmasking struct{ io.Reader }

func (u unmasking) Read(p []byte) (int, error) {
	var head [6]byte
	if _, err := io.ReadFull(u.Reader, head[:]); err != nil {
		return 0, err
	}
	n := int(head[1] & 0x7f)
	if _, err := io.ReadFull(u.Reader, p[2:2+n]); err != nil {
		return 0, err
	}
	p[0], p[1] = head[0], byte(n)
	frame.Mask([4]byte(head[2:]), 0, p[2:2+n])
	return 2 + n, nil
}

// relayEcho is a session whose upstream sends back what it gets.
func relayEcho(t testing.TB, policy *Policy, p pair, size int) (roundTrip func()) {
	passing := inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
	link := New(Session{Policy: policy, Inspector: passing, Sizes: [2]*Sizes{new(Sizes), new(Sizes)}})
	cOwn, c := p(t)
	uOwn, u := p(t)
	link.Attach(uOwn, nil, false, false)
	link.Start(cOwn, nil)
	ended := background(func() { link.Run(); link.Finish() })
	up := appendFrame(nil, frame.Binary, make([]byte, size), true, 0)
	down := appendFrame(nil, frame.Binary, make([]byte, size), false, 0)
	echoed := background(func() {
		in := make([]byte, len(up))
		for {
			if _, err := io.ReadFull(u, in); err != nil {
				return
			}
			if _, err := u.Write(down); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		link.End(End{Cause: Draining})
		c.Close()
		u.Close()
		soon(t, ended, "the session's end")
		soon(t, echoed, "the echo's")
	})
	in := make([]byte, len(down))
	return func() {
		if _, err := c.Write(up); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			t.Fatal(err)
		}
	}
}

// In the long run a message costs no allocation, in relay mode on plain
// sockets, with every counter, limit and timer on.
func TestRelayDoesNotAllocate(t *testing.T) {
	if racing {
		t.Skip("pools forget under the race detector")
	}
	busy := func(p *Policy) {
		p.Keepalive = Keepalive{30 * time.Second, 10 * time.Second}
		p.Timeouts.Idle, p.Timeouts.Lifetime = time.Hour, 2*time.Hour
		p.MessageSize = 1 << 20
		p.Rate = Rate{Messages: 1e9, Bytes: 1e12, Burst: time.Second}
	}
	tests := []struct {
		name   string
		change func(*Policy)
		pair   pair
		size   int
	}{
		{"64 bytes", busy, tcpPair, 64},
		{"64 bytes over unix sockets", busy, unixPair, 64},
		{"10 KiB", busy, tcpPair, 10 << 10},
		{"100 KiB", busy, tcpPair, 100 << 10},
		{"continuity", func(p *Policy) { busy(p); holding(p); p.Continuity.Whole = 64 << 10 }, tcpPair, 10 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			round := relayEcho(t, newPolicy(tt.change), tt.pair, tt.size)
			for range 100 {
				round()
			}
			runtime.GC()
			// A collection in between empties the pools: a few for a thousand.
			const rounds = 1000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				round()
			}
			runtime.ReadMemStats(&after)
			if got := after.Mallocs - before.Mallocs; got > rounds/20 {
				t.Errorf("got %d allocations in %d round trips, want none", got, rounds)
			}
		})
	}
}

func BenchmarkRelayEcho(b *testing.B) {
	for _, mode := range []struct {
		name   string
		change func(*Policy)
		pair   pair
	}{
		{"relay", nil, tcpPair},
		{"continuity", func(p *Policy) { holding(p); p.Continuity.Whole = 64 << 10 }, tcpPair},
		{"message", assembling, tcpPair},
		{"relay TLS", nil, tlsPair},
	} {
		for _, size := range []int{64, 1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("%s %d", mode.name, size), func(b *testing.B) {
				round := relayEcho(b, newPolicy(mode.change), mode.pair, size)
				b.ReportAllocs()
				for b.Loop() {
					round()
				}
			})
		}
	}
}

// greeter is a Replayer whose upstreams say "ack" to its "hello".
type greeter struct {
	handed []string // by the client's reader
	ready  atomic.Bool
}

func (g *greeter) HandedOver(_ frame.Opcode, data []byte) { g.handed = append(g.handed, string(data)) }

func (g *greeter) Greet() []Recorded {
	if len(g.handed) == 0 {
		return nil // the first upstream
	}
	g.ready.Store(false)
	return []Recorded{{frame.Text, []byte("hello")}}
}

func (g *greeter) Ready() bool { return len(g.handed) == 0 || g.ready.Load() }

func (g *greeter) Replay() []Recorded {
	if len(g.handed) == 0 {
		return nil
	}
	return []Recorded{{frame.Text, []byte("subscribe")}}
}

// What a Replayer repeats goes out when its greeting is answered, whether or
// not the client says something; what the client says goes behind it.
func TestReplayerIsAnsweredFirst(t *testing.T) {
	for _, talks := range []bool{false, true} {
		t.Run(fmt.Sprint("client talks ", talks), func(t *testing.T) {
			g := new(greeter)
			answer := inspector(func(from Side, _ frame.Opcode, data []byte) Result {
				if from == Upstream && string(data) == "ack" {
					g.ready.Store(true)
					return Result{Verdict: Drop}
				}
				return Result{}
			})
			r := newRig(t, Session{Policy: newPolicy(func(p *Policy) { holding(p); assembling(p) }), Inspector: answer, Replayer: g}, tcpPair, nil)
			c, a := r.client, r.attach()
			c.say(c.text("first"))
			a.expect(text("first"))
			a.Close()
			r.loss()
			b := r.attach()
			b.expect(text("hello"))
			if talks {
				c.say(c.text("more"))
				waitFor(t, func() bool { return r.link.Held() > 0 })
			}
			b.say(b.text("not yet"), b.text("ack"))
			b.expect(text("subscribe"))
			if !talks {
				c.say(c.text("more"))
			}
			b.expect(text("more"))
			c.expect(text("not yet"))
			c.say(c.closing(1000, ""))
			b.Close()
			r.over(ClientClosed)
			if want := []string{"first", "more"}; !slices.Equal(g.handed, want) {
				t.Errorf("handed over %q, want %q", g.handed, want)
			}
		})
	}
}

// A client that closes in the moment in which its upstream is lost is
// answered, and not held.
func TestCloseCrossesLoss(t *testing.T) {
	for name, change := range map[string]func(*Policy){"continuity": holding, "none": nil} {
		t.Run(name, func(t *testing.T) {
			link := New(Session{Policy: newPolicy(change)})
			cOwn, cFar := tcpPair(t)
			uOwn, u := tcpPair(t)
			c := newPeer(t, cFar, Client)
			link.Attach(uOwn, nil, false, false)
			link.Start(cOwn, nil)
			c.say(c.closing(4000, "bye"))
			waitFor(t, func() bool {
				link.mu.Lock()
				defer link.mu.Unlock()
				return link.farewell != nil
			})
			// Run had read the upstream's end before.
			if loss := link.lose(link.running(), &Loss{Cause: LossBroken}); loss != nil {
				t.Errorf("got %v, want the session's end", loss)
			}
			if end := link.Ended(); end == nil || end.Cause != ClientClosed {
				t.Fatalf("ended with %+v", end)
			}
			u.Close()
			link.Finish()
			c.expect(closed(4000, "bye"))
		})
	}
}

// What was held is a new upstream's before the client's close frame is,
// however close the two come.
func TestHeldBeforeClose(t *testing.T) {
	onEachEngine(t, "close", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(holding)
		for range 100 {
			r := newRig(t, s, p, nil)
			r.client.say(r.client.text("held"))
			waitFor(t, func() bool { return r.link.Held() > 0 })
			closing := background(func() { r.client.say(r.client.closing(1000, "")) })
			u := r.attach()
			<-closing
			var got []heard // nothing where the client was first
			for h, ok := u.next(); ok; h, ok = u.next() {
				if got = append(got, h); h.op == frame.Close {
					u.say(u.closing(1000, ""))
				}
			}
			if len(got) > 0 && !slices.Equal(got, []heard{text("held"), closed(1000, "")}) {
				t.Fatalf("the upstream got %v", got)
			}
			u.Close()
			r.over(ClientClosed)
		}
	})
}
