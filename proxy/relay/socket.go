package relay

import (
	"errors"
	"sync/atomic"
)

// socket is what a leg is on a loop: a descriptor of its own, duplicated
// from the net.Conn that it came as. Only the loop touches it. A write takes
// what the peer takes; the rest waits in the backlog, and whoever fills it
// is not read until it is out.
type socket struct {
	link  *Link
	fd    int    // -1: closed
	place uint32 // in the epoll set; 0: none yet

	// Side by side, since sessions are many.
	readable bool // the kernel may have bytes, or the end
	ended    bool // RDHUP, HUP or ERR was seen: a short read says nothing any more
	gone     bool // HUP or ERR was seen
	carried  bool // what is being looked at lies in the carry
	over     bool // it is no longer read as its session's
	fin      bool // the stream ends behind the backlog
	finned   bool
	abort    bool // closing resets
	leaving  bool // what waits is written, at whatever boundary
	linger   bool // it is read to the peer's end before it is closed
	unbegun  bool // of an upstream: its loop has not begun its stream
	inflate  bool // of an upstream: its messages may be compressed
	// answered says that a handler's answers to this side are in the backlog:
	// until they are out it is not read, for it could ask for more. It is read
	// while other data waits: what it says may be what makes it take that.
	answered bool

	tls *secured // nil: none

	backlog gathered     // written and not yet taken
	off     int          // of the backlog's first byte that is not taken
	weight  atomic.Int64 // of the backlog; any goroutine may read it
	taken   uint64       // bytes taken so far
	since   instant      // when the backlog last shrank

	loss  *Loss         // of an upstream that is over
	gave  chan struct{} // of an upstream: closed when it is over and its loss, if any, is set
	until instant       // how long it may take to leave
}

// newSocketLeg wraps a descriptor.
func newSocketLeg(l *Link, fd int, early []byte, side Side) *leg {
	g := &leg{masked: side == Upstream, stall: l.Policy.Timeouts.Write, atFrame: true, atMessage: true,
		sock: &socket{link: l, fd: fd, readable: true}}
	if side == Upstream {
		g.sock.gave = make(chan struct{})
	}
	if len(early) > 0 {
		g.carry.append(early)
		g.fresh = true
	}
	g.heard.Store(int64(now()))
	return g
}

// giveUp tells who watches an upstream that it is over.
func (s *socket) giveUp() {
	s.over = true
	select {
	case <-s.gave:
	default:
		close(s.gave)
	}
}

// watch waits until the leg is over and returns its Loss, if it was lost.
func (l *leg) watch() *Loss {
	<-l.sock.gave
	return l.sock.loss
}

// backed reports whether the peer has not taken all that was written.
func (l *leg) backed() bool { return l.sock != nil && l.sock.backlog.n > 0 }

// closesBehind reports whether the close frame may be written behind a
// backlog. Nothing else is: what waits for a boundary is bounded, and of a
// client's data it has to be known what an upstream has taken. l.mu is held.
func (l *leg) closesBehind() bool { return len(l.closing) > 0 && l.sock.leaving }

// offer is send on a loop: it always takes all of p, and returns how much of
// it the socket took.
func (l *leg) offer(p []byte, m mark) (n int, err error) {
	s := l.sock
	// A panic leaves the stream somewhere inside a frame.
	l.atFrame, l.atMessage = false, false
	if s.tls != nil {
		n, err = s.seal(p)
	} else {
		n, err = s.put(p)
	}
	if err != nil {
		l.broken = err
		return n, err
	}
	l.atFrame = m.frame == len(p)
	l.atMessage = m.message == len(p)
	return n, nil
}

// put writes what the peer takes of p; the rest waits.
func (s *socket) put(p []byte) (n int, err error) {
	if s.backlog.n == 0 {
		n, err = transmit(s.fd, p)
		if err != nil && err != errFull {
			return 0, err
		}
		s.taken += uint64(n)
	}
	if n < len(p) {
		if s.backlog.n == 0 {
			s.since = s.link.seat.loop.now
			s.link.seat.soon = true // its stall is watched from now on
		}
		s.backlog.append(p[n:])
		s.weight.Store(int64(s.backlog.n - s.off))
	}
	return n, nil
}

// end returns the place in the socket's stream behind all that is for it.
func (s *socket) end() uint64 { return s.taken + uint64(s.backlog.n-s.off) }

// behind returns how many bytes were written so far.
func (s *socket) behind() uint64 {
	if s.tls != nil {
		return s.tls.written
	}
	return s.end()
}

// handed returns how many of them the socket has taken.
func (s *socket) handed() uint64 {
	if s.tls != nil {
		return s.tls.handed(s.taken)
	}
	return s.taken
}

// drain writes the backlog. An error means that the stream is cut.
func (l *leg) drain() error {
	s := l.sock
	for s.backlog.n > 0 {
		n, err := transmit(s.fd, s.backlog.bytes()[s.off:])
		if err == errFull {
			return nil
		}
		if err != nil {
			l.cut(err)
			return err
		}
		s.taken += uint64(n)
		s.since = s.link.seat.loop.now
		if s.off += n; s.off == s.backlog.n {
			s.forget()
		}
		s.weight.Store(int64(s.backlog.n - s.off))
	}
	return nil
}

// cut gives up what the peer has not taken: nothing can follow it.
func (l *leg) cut(err error) {
	l.broken = err
	l.atFrame, l.atMessage = false, false
	l.sock.forget()
}

// forget empties the backlog.
func (s *socket) forget() {
	s.backlog.reset()
	s.off, s.answered = 0, false
	s.weight.Store(0)
}

// endStream does what closeWrite has asked for, once the backlog is out.
func (l *leg) endStream() {
	s := l.sock
	if !s.fin || s.finned || s.abort {
		return
	}
	l.notify()
	if s.backlog.n == 0 {
		s.finned = true
		shutdown(s.fd)
	}
}

// await queues a control frame of the other side for the next boundary.
func (l *leg) await(p []byte) {
	l.mu.Lock()
	if len(l.controls) < maxControls {
		l.controls = append(l.controls, p...)
	}
	l.pending.Store(true)
	l.mu.Unlock()
}

// draw returns what is there to be looked at: what was left of the last
// chunk with what has come since. The caller gives the rest back with stow.
// The error is errDry when nothing is there.
func (l *leg) draw(p *Loop) ([]byte, error) {
	s := l.sock
	if l.fresh {
		l.fresh, s.carried = false, true
		return l.carry.bytes(), nil
	}
	at := copy(p.buf, l.carry.bytes())
	n, err := s.get(p.buf[at:])
	if err != nil {
		return nil, err
	}
	l.heard.Store(int64(p.now))
	return p.buf[:at+n], nil
}

// get reads what is there.
func (s *socket) get(b []byte) (int, error) {
	if s.tls != nil {
		return s.open(b)
	}
	n, err := receive(s.fd, b)
	s.readable = err == nil && (n == len(b) || s.ended)
	return n, err
}

// stow takes the unconsumed rest of a chunk back; resting says that it has
// not been looked at to its end.
func (l *leg) stow(rest []byte, resting bool) {
	if l.sock.carried {
		l.sock.carried = false
		l.carry.drop(l.carry.len() - len(rest))
	} else {
		l.carry.reset()
		l.carry.append(rest)
	}
	l.fresh = resting && len(rest) > 0
}

// errDry is a socket that has nothing more to read now, errFull one that
// takes nothing more.
var (
	errDry  error = dry{}
	errFull       = errors.New("nothing taken")
)

// dry is a net.Error that lets crypto/tls try again.
type dry struct{}

func (dry) Error() string   { return "nothing to read" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

var errNoSocket = errors.New("upstream's connection is no socket")

var errLost = errors.New("upstream is lost")
