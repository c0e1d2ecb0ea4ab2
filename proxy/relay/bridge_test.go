package relay

import (
	"errors"
	"net"
	"testing"
)

// broken is a connection that takes nothing more, whose peer has said
// something before: it can be read once that is known.
type broken struct {
	net.Conn
	refused chan struct{}
}

func (b *broken) Write([]byte) (int, error) {
	select {
	case <-b.refused:
	default:
		close(b.refused)
	}
	return 0, errors.New("broken pipe")
}

func (b *broken) Read(p []byte) (int, error) {
	<-b.refused
	return b.Conn.Read(p)
}

// What an upstream has said before it took nothing more is read to its end.
func TestBridgeReadsToTheEnd(t *testing.T) {
	onEachEngine(t, "end", func(t *testing.T, s Session, client pair) {
		s.Policy = newPolicy(nil)
		calls := 0
		r := newRig(t, s, func(t testing.TB) (own, peer net.Conn) {
			if calls++; calls == 1 {
				return client(t)
			}
			own, peer = tcpPair(t)
			return &broken{own, make(chan struct{})}, peer
		}, nil)
		u, c := r.attach(), r.client
		u.say(u.text("last"), u.closing(4000, "over"))
		c.say(c.text("refused"))
		c.expect(text("last"), closed(4000, "over"))
		c.say(c.closing(4000, ""))
		u.Close()
		r.over(UpstreamClosed)
	})
}
