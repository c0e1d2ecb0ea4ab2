package relay

import (
	"bytes"
	"crypto/rand"

	"github.com/stentproxy/stent/proxy/frame"
)

// pings keeps account of the pings sent to one peer: our own, and the other
// side's that were forwarded to it.
type pings struct {
	own       [8]byte // the payload of ours, random so that it is known again
	at        instant // when ours was last sent
	sent      uint64  // how many were
	forwarded *forwardedPing
}

// forwardedPing is the latest forwarded ping; a peer may answer only the
// latest (RFC 6455 section 5.5.3), so older ones are not kept.
type forwardedPing struct {
	payload [frame.MaxControl]byte
	n       int
	out     bool // not answered yet
	older   bool // than our own outstanding ping
	stale   bool // its sender is gone
}

func (f *forwardedPing) bytes() []byte { return f.payload[:f.n] }

// forward notes a ping of the other side that goes to this peer.
func (p *pings) forward(payload []byte) {
	if p.forwarded == nil {
		p.forwarded = new(forwardedPing)
	}
	f := p.forwarded
	f.n = copy(f.payload[:], payload)
	f.out, f.older, f.stale = true, false, false
}

// recall takes a forwarded ping back that could not be written. It reports
// whether an answer is still owed: whoever has found the peer gone before may
// have given it, see forget.
func (p *pings) recall() bool {
	if !p.waiting() || p.forwarded.stale {
		return false
	}
	p.forwarded.out = false
	return true
}

// ping notes that our own ping is sent at t and returns its payload, which
// stays the same for the life of a leg: a late pong is still known as ours.
func (p *pings) ping(t instant) []byte {
	if p.sent == 0 {
		rand.Read(p.own[:])
	}
	p.sent++
	p.at = t
	if p.forwarded != nil {
		p.forwarded.older = p.forwarded.out
	}
	return p.own[:]
}

// waiting reports whether a forwarded ping is not answered yet.
func (p *pings) waiting() bool { return p.forwarded != nil && p.forwarded.out }

// forget is called when the other side, whose pings were forwarded, is
// gone. It returns the payload of the one that is outstanding.
func (p *pings) forget() ([]byte, bool) {
	if !p.waiting() || p.forwarded.stale {
		return nil, false
	}
	p.forwarded.stale = true
	return p.forwarded.bytes(), true
}

// pongKind is what a pong answers.
type pongKind uint8

const (
	pongUnasked   pongKind = iota // nothing that went through us
	pongOwn                       // our own ping
	pongCrossed                   // ours, and so a forwarded ping before it will get none
	pongForwarded                 // a forwarded ping
	pongStale                     // a forwarded ping whose sender is gone
)

// pong sorts a pong from the peer. With pongCrossed it returns the payload
// of the forwarded ping that the peer need not answer any more.
func (p *pings) pong(payload []byte) (pongKind, []byte) {
	f := p.forwarded
	if p.sent > 0 && bytes.Equal(payload, p.own[:]) {
		if f == nil || !f.out || !f.older {
			return pongOwn, nil
		}
		f.out = false
		if f.stale {
			return pongOwn, nil
		}
		return pongCrossed, f.bytes()
	}
	if f != nil && f.out && bytes.Equal(payload, f.bytes()) {
		f.out = false
		if f.stale {
			return pongStale, nil
		}
		return pongForwarded, nil
	}
	return pongUnasked, nil
}
