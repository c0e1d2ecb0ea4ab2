package relay

import (
	"net"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/frame"
)

// Pushes that wait for their side are bounded.
func TestWaitingPushesAreBounded(t *testing.T) {
	for _, to := range []Side{Client, Upstream} {
		t.Run(to.String(), func(t *testing.T) {
			l := New(Session{Policy: &Policy{Continuity: &Continuity{}}})
			message := make([]byte, maxPushes/2-frame.MaxHeader)
			for i, want := range []Pushed{Held, Held, Full} {
				if got := l.Push(to, frame.Binary, message); got != want {
					t.Errorf("push %d: got %d, want %d", i, got, want)
				}
			}
		})
	}
}

// A push that waits for the end of a message neither doubles nor loses what
// lies behind that end, where the client takes a part of it only.
func TestPushBehindPartOfMessage(t *testing.T) {
	onEachEngine(t, "push", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(nil)
		r := newRig(t, s, func(testing.TB) (own, peer net.Conn) { return tightPair() }, nil)
		u, c := r.attach(), r.client
		long := strings.Repeat("m", 40<<10)
		for range 20 {
			before := c.total.Load()
			u.say(u.frame(false, frame.Text, "begun "))
			waitFor(t, func() bool { return c.total.Load() > before })
			if got := r.link.Push(Client, frame.Text, []byte("pushed")); got != Written {
				t.Fatalf("the push is %v, want it written", got)
			}
			next := u.text("next")
			u.say(u.frame(true, frame.Continuation, long), next[:3])
			c.expect(text("begun " + long))
			u.say(next[3:])
			got := map[heard]bool{}
			for range 2 {
				h, _ := c.next()
				got[h] = true
			}
			if !got[text("pushed")] || !got[text("next")] {
				t.Fatalf("the client got %v behind the message, want the push and what came next", got)
			}
		}
	})
}
