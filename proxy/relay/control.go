package relay

import "github.com/stentproxy/stent/proxy/frame"

// controlFrame is a control frame with its payload unmasked.
type controlFrame struct {
	op   frame.Opcode
	n    int
	body [frame.MaxControl]byte
}

func (c *controlFrame) payload() []byte { return c.body[:c.n] }

// parseControl reads a whole control frame that a scanner has found.
func parseControl(raw []byte) (c controlFrame) {
	h, n, _ := frame.ParseHeader(raw)
	c.op = h.Opcode
	c.n = copy(c.body[:], raw[n:])
	if h.Masked {
		frame.Mask(h.Key, 0, c.payload())
	}
	return c
}

// forwardPing hands a ping on to the other side as it came. It returns
// false when there is no other side to answer it, and stent has to.
func (l *Link) forwardPing(to *leg, raw, payload []byte) bool {
	if to == nil {
		return false
	}
	to.mu.Lock()
	to.pings.forward(payload)
	to.mu.Unlock()
	if to.control(raw) == nil {
		return true
	}
	to.mu.Lock()
	owed := to.pings.recall()
	to.mu.Unlock()
	return !owed
}

// pong sorts a pong of one leg: ours are swallowed, the other side's go on.
func (l *Link) pong(from, to *leg, raw, payload []byte) {
	from.mu.Lock()
	kind, crossed := from.pings.pong(payload)
	crossed = append([]byte(nil), crossed...)
	from.mu.Unlock()
	if to == nil {
		return
	}
	switch kind {
	case pongOwn, pongStale:
	case pongCrossed:
		to.inject(frame.Pong, crossed)
	case pongForwarded, pongUnasked:
		if !l.Policy.Assemble {
			to.control(raw)
		}
	}
}
