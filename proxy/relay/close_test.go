package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// inspector answers each message by what it says.
type inspector func(from Side, t frame.Opcode, data []byte) Result

func (f inspector) Inspect(from Side, t frame.Opcode, data []byte) Result { return f(from, t, data) }

func assembling(p *Policy) { p.Assemble, p.MessageSize = true, 16<<20 }

// quickClose lets a test meet timeouts.close.
func quickClose(p *Policy) { p.Timeouts.Close = 100 * time.Millisecond }

// Each row of the close table, as both ends see it on the wire.
func TestCloseTable(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		name   string
		policy []func(*Policy)
		modes  string // r: relay, w: with continuity, m: message mode
		run    func(t *testing.T, r *rig, c, u *peer)
		cause  Cause
	}{
		{"the client closes", nil, "rw", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.closing(4000, "bye"))
			u.expect(closed(4000, "bye"))
			u.say(u.text("last words"), u.closing(4001, "well then"))
			c.expect(text("last words"), closed(4001, "well then"))
			c.expectEnd()
			u.expectEnd()
		}, ClientClosed},
		{"the client closes, message mode", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.closing(4000, "bye"))
			u.expect(closed(4000, "bye"))
			u.say(u.text("last words"), u.closing(4001, "well then"))
			c.expect(text("last words"), closed(4000, "bye"))
			c.expectEnd()
			u.expectEnd()
		}, ClientClosed},
		{"the client closes without a code", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.frame(true, frame.Close, ""))
			u.expect(heard{frame.Close, ""})
			u.say(u.frame(true, frame.Close, ""))
			c.expect(heard{frame.Close, ""})
			c.expectEnd()
		}, ClientClosed},
		{"the client closes and the upstream doesn't answer", []func(*Policy){quickClose}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.closing(4000, "bye"))
			u.expect(closed(4000, "bye"))
			c.expect(closed(4000, "bye"))
			c.expectEnd()
			u.expectEnd()
		}, ClientClosed},
		{"the client closes and the upstream breaks down", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.closing(4000, "bye"))
			u.expect(closed(4000, "bye"))
			u.Close()
			c.expect(closed(4000, "bye"))
			c.expectEnd()
		}, ClientClosed},
		{"the client vanishes", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.reset()
			u.expect(closed(1001, ""))
			u.say(u.closing(1001, ""))
			u.expectEnd()
		}, ClientGone},
		{"the client ends its stream without a word", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("last"))
			closeWrite(t, c)
			u.expect(text("last"), closed(1001, ""))
			u.say(u.text("answer"), u.closing(1001, ""))
			c.expect(text("answer"))
			c.expectEnd()
			u.expectEnd()
		}, ClientGone},
		{"the client ends inside a frame", []func(*Policy){quickClose}, "r", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("whole"), c.text("torn")[:8])
			u.expect(text("whole"))
			closeWrite(t, c)
			<-u.done
			if h, ok := u.next(); ok || !u.read.open {
				t.Errorf("the upstream got %v", h)
			}
		}, ClientGone},
		{"the upstream closes", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("last"), u.closing(4002, "enough"))
			c.expect(text("last"), closed(4002, "enough"))
			u.expect(closed(4002, "enough"))
			c.say(c.closing(4002, ""))
			c.expectEnd()
			u.expectEnd()
		}, UpstreamClosed},
		{"the upstream closes without a code", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(true, frame.Close, ""))
			c.expect(heard{frame.Close, ""})
			u.expect(heard{frame.Close, ""})
			c.say(c.frame(true, frame.Close, ""))
			c.expectEnd()
		}, UpstreamClosed},
		{"the upstream closes with a code that comes back, continuity off", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.closing(1012, "restart"))
			c.expect(closed(1012, "restart"))
			u.expect(closed(1012, "restart"))
		}, UpstreamClosed},
		{"the upstream closes inside a large message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(false, frame.Text, long), u.closing(1012, "restart"))
			c.expect(closed(1012, "restart"))
			u.expect(closed(1012, "restart"))
			c.say(c.closing(1012, ""))
			<-c.done
		}, UpstreamClosed},
		{"the upstream closes and resets", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("unread"))
			u.expect(text("unread"))
			u.say(u.closing(4003, "gone"))
			u.reset()
			c.expect(closed(4003, "gone"))
			c.say(c.closing(4003, ""))
			c.expectEnd()
		}, UpstreamClosed},
		{"the upstream is lost", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("last"))
			u.Close()
			c.expect(text("last"), closed(1012, "upstream lost"))
			c.say(c.closing(1012, ""))
			c.expectEnd()
		}, UpstreamLost},
		{"the upstream resets", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.reset()
			c.expect(closed(1012, "upstream lost"))
		}, UpstreamLost},
		{"the upstream breaks the protocol", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("good"), []byte{0x83, 0})
			c.expect(text("good"), closed(1011, ""))
			u.expect(closed(1002, ""))
			u.expectEnd()
		}, UpstreamProtocol},
		{"the upstream masks", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.say([]byte{0x81, 0x80, 1, 2, 3, 4})
			c.expect(closed(1011, ""))
			u.expect(closed(1002, ""))
		}, UpstreamProtocol},
		{"the upstream closes with a code that is none", nil, "rm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(true, frame.Close, "\x03\xed"))
			c.expect(closed(1011, ""))
			u.expect(closed(1002, ""))
		}, UpstreamProtocol},
		{"the upstream is lost inside a message, relay", nil, "r", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(false, frame.Text, "begun"))
			waitFor(t, func() bool { return c.wireBytes() > 0 })
			u.Close()
			c.expectReset()
		}, UpstreamTorn},
		{"the upstream is lost inside a frame, relay", nil, "r", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("begun")[:4])
			waitFor(t, func() bool { return c.wireBytes() > 0 })
			u.Close()
			c.expectReset()
		}, UpstreamTorn},
		{"the upstream is lost inside a large message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text(long)[:100])
			waitFor(t, func() bool { return c.wireBytes() > 0 })
			u.Close()
			c.expectReset()
		}, UpstreamTorn},
		{"the upstream breaks the protocol inside a large message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(false, frame.Text, long), u.text("no"))
			c.expectReset()
			u.expect(closed(1002, ""))
		}, UpstreamTorn},
		{"the upstream is lost inside a large client message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text(long)[:100])
			waitFor(t, func() bool { return u.wireBytes() > 0 })
			u.Close()
			c.expect(closed(1012, ""))
			c.say(c.text(long)[100:], c.closing(1012, ""))
			c.expectEnd()
		}, ClientTorn},
		{"the upstream is lost inside a large message of each side", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text(long)[:100])
			u.say(u.frame(false, frame.Text, long))
			waitFor(t, func() bool { return u.wireBytes() > 0 && c.wireBytes() > 0 })
			u.reset()
			c.Write(c.text(long)[100:]) // it may be too late for that
			c.expectReset()
		}, UpstreamTorn},
		{"the upstream is lost between fragments of a large client message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			begin := c.frame(false, frame.Text, long)
			c.say(begin)
			waitFor(t, func() bool { return u.wireBytes() == len(begin) })
			u.Close()
			c.expect(closed(1012, ""))
		}, ClientTorn},
		{"the upstream closes for good inside a large client message", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text(long)[:100])
			waitFor(t, func() bool { return u.wireBytes() > 0 })
			u.say(u.closing(4004, "no more"))
			c.expect(closed(4004, "no more"))
		}, UpstreamClosed},
		{"the client breaks the protocol", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("good"), []byte{0x83, 0x80})
			u.expect(text("good"), closed(1002, ""))
			u.say(u.text("answer"), u.closing(1002, ""))
			c.expect(text("answer"), closed(1002, "protocol error"))
			c.expectEnd()
			u.expectEnd()
		}, ClientProtocol},
		{"the client does not mask", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say([]byte{0x81, 0})
			u.expect(closed(1002, ""))
			u.Close()
			c.expect(closed(1002, "protocol error"))
			c.expectEnd()
		}, ClientProtocol},
		{"the client closes with a code that is none", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.frame(true, frame.Close, "\x03\xee"))
			u.expect(closed(1002, ""))
			u.Close()
			c.expect(closed(1002, "protocol error"))
		}, ClientProtocol},
		{"the client closes with one byte", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.frame(true, frame.Close, "x"))
			u.expect(closed(1002, ""))
			u.Close()
			c.expect(closed(1002, "protocol error"))
		}, ClientProtocol},
		{"a close reason that is not UTF-8, message mode", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.closing(1000, "\xff"))
			c.expect(closed(1007, "text is not UTF-8"))
			u.expect(closed(1001, ""))
		}, InvalidText},
		{"an upstream's close reason that is not UTF-8, message mode", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.closing(1000, "\xff"))
			c.expect(closed(1007, "text is not UTF-8"))
			u.expect(closed(1001, ""))
		}, InvalidText},
		{"the client's message is too big", []func(*Policy){func(p *Policy) { p.MessageSize = 200 }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("good"), c.text(long))
			u.expect(text("good"), closed(1001, ""))
			c.expect(closed(1009, ""))
			c.expectEnd()
		}, TooBig},
		{"the upstream's message is too big", []func(*Policy){func(p *Policy) { p.MessageSize = 200 }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("good"), u.text(long))
			c.expect(text("good"), closed(1009, ""))
			u.expect(closed(1001, ""))
		}, TooBig},
		{"the client's text is not UTF-8", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("good"), c.text("\xff"))
			u.expect(text("good"), closed(1001, ""))
			c.expect(closed(1007, "text is not UTF-8"))
		}, InvalidText},
		{"the upstream's text is not UTF-8", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.frame(false, frame.Text, "\xe2\x82"), u.frame(true, frame.Continuation, "\x41"))
			c.expect(closed(1007, "text is not UTF-8"))
			u.expect(closed(1001, ""))
		}, InvalidText},
		{"above the rate", []func(*Policy){func(p *Policy) { p.Rate = Rate{Messages: 1e-3, OnLimit: CloseSession} }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("one"), c.text("two"))
			u.expect(text("one"), closed(1001, ""))
			c.expect(closed(1008, ""))
		}, OverLimit},
		{"kicked", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			r.link.End(End{Cause: Kicked, Code: 4005, Reason: "out"})
			c.expect(closed(4005, "out"))
			u.expect(closed(1001, ""))
			c.say(c.closing(4005, ""))
			c.expectEnd()
			u.say(u.closing(1001, ""))
			u.expectEnd()
		}, Kicked},
		{"kicked without a code", nil, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			r.link.End(End{Cause: Kicked})
			c.expect(closed(1008, ""))
			u.expect(closed(1001, ""))
		}, Kicked},
		{"the proxy drains while a message is on its way", nil, "rw", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text(long)[:200])
			waitFor(t, func() bool { return c.wireBytes() > 0 })
			r.link.End(End{Cause: Draining})
			u.say(u.text(long)[200:])
			c.expect(text(long), closed(1012, ""))
			u.expect(closed(1001, ""))
		}, Draining},
		{"the proxy drains inside a frame that never ends", []func(*Policy){quickClose}, "rw", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text(long)[:200])
			waitFor(t, func() bool { return c.wireBytes() > 0 })
			r.link.End(End{Cause: Draining})
			c.expectReset()
		}, Draining},
		{"idle", []func(*Policy){func(p *Policy) { p.Timeouts.Idle = time.Second }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.expect(closed(1001, ""))
			u.expect(closed(1001, ""))
		}, Idle},
		{"lifetime", []func(*Policy){func(p *Policy) { p.Timeouts.Lifetime = time.Second }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			c.expect(closed(1001, ""))
			u.expect(closed(1001, ""))
		}, Lifetime},
		{"the client is silent", []func(*Policy){func(p *Policy) { p.Keepalive = Keepalive{50 * time.Millisecond, 100 * time.Millisecond} }}, "rwm", func(t *testing.T, r *rig, c, u *peer) {
			for {
				h, ok := u.next()
				if !ok || h.op == frame.Close {
					if h != closed(1001, "") {
						t.Errorf("the upstream got %v", h)
					}
					break
				}
				u.say(u.frame(true, frame.Pong, h.payload))
			}
			if h, _ := c.next(); h.op != frame.Ping {
				t.Errorf("the client got %v, want a ping", h)
			}
			c.expect(closed(1001, ""))
			c.expectEnd()
		}, ClientSilent},
		{"the upstream is silent", []func(*Policy){func(p *Policy) { p.Keepalive = Keepalive{50 * time.Millisecond, 100 * time.Millisecond} }}, "rm", func(t *testing.T, r *rig, c, u *peer) {
			for {
				h, ok := c.next()
				if !ok || h.op == frame.Close {
					if h != closed(1012, "upstream lost") {
						t.Errorf("the client got %v", h)
					}
					break
				}
				c.say(c.frame(true, frame.Pong, h.payload))
			}
			if h, _ := u.next(); h.op != frame.Ping {
				t.Errorf("the upstream got %v, want a ping", h)
			}
			u.expect(closed(1001, ""))
			c.say(c.closing(1012, ""))
			u.expectEnd()
		}, UpstreamLost},
		{"given up", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.say(c.frame(true, frame.Ping, "still there?"))
			c.expect(heard{frame.Pong, "still there?"})
			r.link.End(End{Cause: GaveUp})
			c.expect(closed(1013, ""))
		}, GaveUp},
		{"the buffer is full and closes", []func(*Policy){func(p *Policy) {
			if p.Continuity != nil {
				p.Continuity.Buffer, p.Continuity.CloseWhenFull = 100, true
			}
		}}, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.say(c.text("held"), c.text(long))
			c.expect(closed(1013, ""))
		}, GaveUp},
		{"one message fills the buffer and goes on", []func(*Policy){func(p *Policy) {
			if p.Continuity != nil {
				p.Continuity.Buffer, p.Continuity.CloseWhenFull = 108, true
			}
		}}, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.say(c.text(long)[:108])
			waitFor(t, func() bool { return r.link.Held() == 108 })
			c.say(c.text(long)[108:])
			c.expect(closed(1013, ""))
		}, GaveUp},
		{"the client closes while it is held", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.say(c.text("held"), c.closing(4006, "bye"))
			c.expect(closed(4006, "bye"))
			c.expectEnd()
		}, ClientClosed},
		{"the client vanishes while it is held", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.reset()
		}, ClientGone},
		{"the client breaks the protocol while it is held", nil, "w", func(t *testing.T, r *rig, c, u *peer) {
			u.Close()
			r.loss()
			c.say([]byte{0x83, 0x80})
			c.expect(closed(1002, "protocol error"))
		}, ClientProtocol},
		{"a handler panics", []func(*Policy){nil}, "m", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("panic"))
			c.expect(closed(1011, ""))
			u.expect(closed(1001, ""))
		}, HandlerFailed},
		{"a handler panics at what the upstream says", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("panic"))
			c.expect(closed(1011, ""))
			u.expect(closed(1001, ""))
		}, HandlerFailed},
		{"a handler stops", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			c.say(c.text("stop"))
			c.expect(closed(1000, "done"))
			u.expect(closed(1001, ""))
		}, HandlerStopped},
		{"a handler stops at what the upstream says", nil, "m", func(t *testing.T, r *rig, c, u *peer) {
			u.say(u.text("stop 4007"))
			c.expect(closed(4007, "done"))
			u.expect(closed(1001, ""))
		}, HandlerStopped},
	}
	speaking := inspector(func(_ Side, _ frame.Opcode, data []byte) Result {
		switch string(data) {
		case "panic":
			panic("at the disco")
		case "stop":
			return Result{Verdict: Stop, Reason: "done"}
		case "stop 4007":
			return Result{Verdict: Stop, Code: 4007, Reason: "done"}
		}
		return Result{}
	})
	for _, tt := range tests {
		for mode, change := range map[rune]func(*Policy){'r': nil, 'w': holding, 'm': assembling} {
			if !strings.ContainsRune(tt.modes, mode) {
				continue
			}
			onEachEngine(t, tt.name+"/"+string(mode), func(t *testing.T, s Session, p pair) {
				t.Parallel()
				policy := newPolicy(change)
				for _, f := range tt.policy {
					if f != nil {
						f(policy)
					}
				}
				s.Policy, s.Inspector = policy, speaking
				r := newRig(t, s, p, nil)
				u := r.attach()
				tt.run(t, r, r.client, u)
				u.Close()
				r.client.Close()
				r.over(tt.cause)
			})
		}
	}
}

func closeWrite(t *testing.T, p *peer) {
	t.Helper()
	if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
}

// waitFor waits for what happens in another goroutine without a word on the
// wire.
func waitFor(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// A client that has to wait for its rate may reset its connection.
func TestResetWhilePaused(t *testing.T) {
	onEachEngine(t, "reset", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(func(p *Policy) { p.Rate = Rate{Messages: 0.01, Burst: time.Second} })
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		c.say(c.text("a"), c.text("b"))
		u.expect(text("a"))
		waitFor(t, func() bool { return r.link.Counters[Client].Limited.Load() > 0 })
		c.reset()
		u.expect(closed(1001, ""))
		u.Close()
		r.over(ClientGone)
	})
}

// What a client still sends of a message that is too big is no frame of its
// own, whatever it looks like.
func TestRestOfBrokenStreamIsNoFrame(t *testing.T) {
	onEachEngine(t, "rest", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(func(p *Policy) { p.MessageSize = 100 })
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		c.say(c.text(strings.Repeat("b", 1000))[:200])
		c.expect(closed(1009, ""))
		u.expect(closed(1001, ""))
		u.Close()
		c.say(c.closing(1000, "")) // it lies inside the message
		select {
		case <-r.ended:
			t.Error("the session is over, and the client was not read to its end")
		case <-time.After(200 * time.Millisecond):
		}
		c.Close()
		r.over(TooBig)
	})
}

// A close frame that came in one segment with the message that was too much
// is found.
func TestCloseBehindMessageOverLimit(t *testing.T) {
	onEachEngine(t, "close", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(func(p *Policy) {
			p.Rate = Rate{Messages: 0.01, Burst: time.Second, OnLimit: CloseSession}
		})
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		c.say(c.text("a"), c.text("b"), c.text("c"), c.closing(1000, ""))
		u.expect(text("a"), closed(1001, ""))
		u.Close()
		c.expect(closed(1008, ""))
		c.expectEnd()
		r.over(OverLimit)
	})
}
