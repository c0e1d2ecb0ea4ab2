package relay

import (
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
