package relay

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// stalePair is a tight pair, with TLS or not, whose peer reads nothing.
func stalePair(secure bool) (own, peer net.Conn) {
	own, peer = tightPair()
	own.(*net.UnixConn).SetWriteBuffer(16 << 10)
	if secure {
		return shake(own, peer, 0)
	}
	return own, peer
}

// An upstream is lost that has taken some messages and a part of more. It has
// the first of them whole, the next upstream has all others: none is lost, and
// none comes twice.
func TestFlightIsSharedOut(t *testing.T) {
	for _, size := range []int{20, 60, 1000, 40_000} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("messages of %d, secure %v", size, secure), func(t *testing.T) {
				r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
					holding(p)
					p.Continuity.Whole = 64 << 10
				}), Loops: startLoops(t, 1)}, tcpPair, nil)
				own, far := stalePair(secure)
				r.next <- own
				<-r.joined
				count := min(2000, 1_000_000/size)
				sent := background(func() {
					for n := range count {
						r.client.Write(r.client.text(fmt.Sprintf("%06d", n) + strings.Repeat("x", size-6)))
					}
				})
				waitFor(t, func() bool { return r.link.Held() > 0 })
				far.Write(appendFrame(nil, frame.Close, frame.AppendClose(nil, 1012, ""), false, 0))
				r.loss()
				first := newPeer(t, far, Upstream)
				second := r.attach()
				next := 0
				for h := range first.got {
					if want := fmt.Sprintf("%06d", next); h.op == frame.Close || !strings.HasPrefix(h.payload, want) {
						t.Fatalf("the first got %v, want message %s", h, want)
					}
					next++
				}
				t.Logf("the first got %d of %d messages", next, count)
				if next == count || next == 0 && size < 10_000 {
					t.Error("nothing is shared out")
				}
				for ; next < count; next++ {
					h, _ := second.next()
					if want := fmt.Sprintf("%06d", next); !strings.HasPrefix(h.payload, want) {
						t.Fatalf("the second got %v, want message %s", h, want)
					}
				}
				soon(t, sent, "the client's messages")
			})
		}
	}
}

// An upstream that takes nothing and says nothing keeps no session from its
// end, whatever the connection is.
func TestUpstreamTakesNothing(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for name, change := range map[string]func(*Policy){"relay": func(*Policy) {}, "continuity": holding} {
			t.Run(fmt.Sprintf("%s, secure %v", name, secure), func(t *testing.T) {
				r := newRig(t, Session{Policy: newPolicy(func(p *Policy) {
					change(p)
					p.Timeouts.Close = 200 * time.Millisecond
				}), Loops: startLoops(t, 1)}, tcpPair, nil)
				own, far := stalePair(secure)
				defer far.Close()
				r.next <- own
				<-r.joined
				flood := background(func() {
					frames := []byte(strings.Repeat(string(r.client.text(strings.Repeat("x", 60))), 1000))
					for range 400 {
						if _, err := r.client.Write(frames); err != nil {
							return
						}
					}
				})
				waitFor(t, func() bool { return r.link.Weight() > 0 })
				r.link.End(End{Cause: Kicked})
				r.over(Kicked)
				soon(t, flood, "the client's end")
			})
		}
	}
}

// What an upstream says after it has taken its last is read to its end.
func TestRefusingUpstreamIsRead(t *testing.T) {
	onEachEngine(t, "end", func(t *testing.T, s Session, client pair) {
		s.Policy = newPolicy(nil)
		r := newRig(t, s, client, nil)
		own, far := unixPair(t)
		deaf := far.(*net.UnixConn)
		if _, ok := r.client.Conn.(interface{ NetConn() net.Conn }); ok {
			own, far = shake(own, far, 0)
		}
		r.next <- own
		<-r.joined
		deaf.CloseRead()
		c := r.client
		c.say(c.text("refused"))
		waitFor(t, func() bool { return r.link.Counters[Client].Messages() == 1 })
		u := &peer{t: t, Conn: far, side: Upstream}
		u.say(u.text("last"), u.closing(4000, "over"))
		c.expect(text("last"), closed(4000, "over"))
		c.say(c.closing(4000, ""))
		u.Close()
		r.over(UpstreamClosed)
	})
}
