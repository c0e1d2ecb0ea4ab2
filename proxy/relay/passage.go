package relay

import "syscall"

// passage is the way of a ping to its peer. It waits for the end of a frame,
// behind what the peer has not taken, and in the system's own buffer, for as
// long as a slow line or a slow sender makes it. A peer that moves on through
// what is before the ping lives, and has not been asked yet.
type passage struct {
	heard   instant // from when on the peer is silent: each silence has its own
	taken   uint64  // what the peer was last seen to have taken
	moved   instant // when that was last seen to grow
	mark    uint64  // what it has taken once it has the ping; 0 while that waits here
	reached instant // when it was seen to have it
}

// withheld reports whether a control frame would have to wait here. l.mu is
// held.
func (l *leg) withheld() bool { return len(l.controls) > 0 || l.backed() }

// reaches follows the passage of what asks a peer that was heard at the
// instant, and reports whether that has reached it.
func (l *leg) reaches(heard, t instant) bool {
	p := &l.passage
	fresh := p.heard != heard
	if p.reached != 0 && !fresh {
		return true
	}
	l.mu.Lock()
	withheld := l.withheld()
	l.mu.Unlock()
	taken, left := l.taken()
	switch {
	case fresh:
		*p = passage{heard: heard, taken: taken, moved: heard}
	case taken > p.taken:
		p.taken, p.moved = taken, t
	}
	if withheld {
		p.mark = 0
		return false
	}
	if p.mark == 0 {
		p.mark = max(taken+left, 1)
	}
	if taken < p.mark && left > 0 {
		return false
	}
	p.reached = t
	return true
}

// taken returns how many bytes the peer has taken and how many are on their
// way to it. Where the system does not say it has taken what its socket has.
func (l *leg) taken() (n, left uint64) {
	if s := l.sock; s != nil {
		if n, left, ok := acknowledged(s.fd); ok {
			return n, left
		}
		return s.taken, 0
	}
	known := false
	if socket, _ := footed(l.conn); socket != nil {
		if raw, err := socket.(syscall.Conn).SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { n, left, known = acknowledged(int(fd)) })
		}
	}
	if !known {
		return l.sent.Load(), 0
	}
	return n, left
}
