package relay

// flight is what a loop has written to an upstream whose socket has not
// taken it all, where a message may be given to another upstream until its
// last byte is taken. The bytes stay in the Link's hold meanwhile.
type flight struct {
	up     *leg   // nil: nothing is in flight
	behind uint64 // the place in up's stream behind it
	piece  bool   // a piece of a message that only one upstream can get
	begun  bool   // up had a part of that message before
}

// lift notes that an upstream's socket took only n bytes of p, or of the
// hold where p is nil; m names the boundaries in all of it.
func (l *Link) lift(up *leg, p []byte, m mark, n int, piece bool) {
	f := &l.seat.flight
	if l.Policy.Continuity == nil {
		return // what an upstream has not taken is lost with it
	}
	if f.up == nil {
		*f = flight{up: up, piece: piece, begun: l.begun != nil}
	}
	f.behind = up.sock.behind()
	inside := m.message != len(p)
	if p == nil {
		inside = m.message != l.hold.len()
		l.retain(n)
	} else {
		taken := 0
		if !piece && l.hold.len() == 0 {
			taken, _ = wholeMessages(p, n)
			l.handedOver(p[:taken])
		}
		l.holdMore(p[taken:], m.after(taken))
	}
	l.began(up, inside)
}

// retain forgets the messages of the hold that lie whole within its first n
// bytes: they are handed over.
func (l *Link) retain(n int) (begun, whole bool) {
	held := l.hold.bytes()
	taken, whole := wholeMessages(held, n)
	l.handedOver(held[:taken])
	l.hold.drop(taken)
	l.holdEnd = l.holdEnd.after(taken)
	l.held.Store(int64(l.hold.len()))
	return n > taken, whole
}

// land is called when an upstream has taken its backlog.
func (l *Link) land(up *leg) {
	f := &l.seat.flight
	if f.up != up {
		return
	}
	*f = flight{}
	l.handedOver(l.hold.bytes())
	l.hold.reset()
	l.holdEnd = noMark
	l.held.Store(0)
}

// ground is called when an upstream takes nothing more: what it has not
// taken is held for the next one, and what no other can be given is torn.
func (l *Link) ground(up *leg) {
	if up.sock == nil {
		return
	}
	f, s := l.seat.flight, up.sock
	if s.backlog.n > 0 {
		up.cut(errLost)
	}
	if f.up != up {
		return
	}
	l.seat.flight = flight{}
	n := max(0, l.hold.len()-int(f.behind-min(f.behind, s.handed()))) // of the hold, taken
	l.begun = nil
	switch {
	case f.piece && (f.begun || n > 0):
		l.begun = up
		l.hold.reset()
		l.held.Store(0)
		l.tear(up)
	case f.piece: // nobody has any of it
	default:
		if begun, whole := l.retain(n); begun && !whole {
			l.begun = up
			l.tear(up)
		}
	}
}
