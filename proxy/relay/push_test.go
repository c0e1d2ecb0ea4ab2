package relay

import "testing"

// Pushes that wait for an upstream are bounded.
func TestParkIsBounded(t *testing.T) {
	l := New(Session{Policy: &Policy{Continuity: &Continuity{}}})
	message := make([]byte, maxPushes/2)
	for i, want := range []Pushed{Held, Held, Full} {
		if got := l.park(message); got != want {
			t.Errorf("push %d: got %d, want %d", i, got, want)
		}
	}
}
