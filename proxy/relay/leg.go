package relay

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

var (
	// errWake interrupts a read: there is something else to do.
	errWake = errors.New("woken")
	// errClosed refuses a write behind our own close frame.
	errClosed = errors.New("leg is closing")
	// errPushFull refuses a push to a peer that does not take what is there.
	errPushFull = errors.New("push queue is full")
)

// maxPushes bounds what may wait for a message boundary on one leg, in
// bytes.
const maxPushes = 1 << 20

// maxControls is where no more control frames of our own are queued, in
// bytes.
const maxControls = 4 * (frame.MaxControl + frame.MaxHeader)

// leg is one connection of a session. One goroutine reads it; any may
// write, one at a time.
type leg struct {
	*line // nil on a loop

	// Side by side, since sessions are many and have two legs each.
	masked             bool // what is written is masked: the leg is an upstream; static
	deflate            bool // permessage-deflate is ours on this leg; static
	fresh              bool // carry has not been looked at; owned by the reader
	atFrame, atMessage bool // where the stream that was written stands; guarded by wmu
	late               bool // what waits goes behind what is written now; guarded by wmu
	polite             bool // closing waits for a message boundary; guarded by mu
	// guarded by the link's mu, of an upstream
	fed    bool // it has what the ones before it had
	moving bool // it is being left on purpose
	failed bool // a write to it failed: what it said is still read
	stuck  bool // it took no data within the write timeout

	pending atomic.Bool // controls, messages or closing wait to be written
	asked   atomic.Bool // whoever holds wmu is to look at it before letting go
	closed  atomic.Bool // our close frame is out; nothing follows; set under wmu

	stall  time.Duration // how long a write may take nothing
	sock   *socket       // the leg's place on a loop; nil: the pump's
	carry  gathered      // bytes read and not consumed yet; owned by the reader
	heard  atomic.Int64  // instant of the last chunk
	broken error         // a write failed; the stream is cut; guarded by wmu
	// readBy is when to stop reading a failed or left upstream, with what it was
	// excused; timed says that there is one.
	readBy  instant       // guarded by the link's mu
	excused time.Duration // likewise
	timed   atomic.Bool

	passage passage // of what asks the peer whether it is there; owned by the reader

	mu sync.Mutex
	// guarded by mu
	controls []byte // frames that wait for a frame boundary
	messages []byte // frames that wait for a message boundary
	closing  []byte // our close frame
	pings    pings
}

// line is what a leg is on the pump: a connection that is waited for.
type line struct {
	// static
	conn net.Conn
	raw  syscall.RawConn // nil: conn has no descriptor of its own

	// owned by the reader
	front    []byte // what a leg without a descriptor waits with
	large    bool   // the last chunk filled its buffer
	readRaw  func(fd uintptr) bool
	chunk    *buffer
	n        int
	readErr  error
	deadline instant // the armed read deadline; 0 is none

	woken atomic.Bool   // the reader is to look up
	kick  chan struct{} // the same for a reader that rests

	wmu   sync.Mutex
	armed instant // when the write deadline was last set; guarded by wmu

	sent  atomic.Uint64 // bytes that conn has taken
	bound atomic.Int64  // instant that no write goes beyond; 0 is none
}

// newLeg wraps conn. Early are bytes of its stream that were read already.
func newLeg(conn net.Conn, early []byte, side Side, p *Policy) *leg {
	l := &leg{line: &line{conn: conn, kick: make(chan struct{}, 1)},
		masked: side == Upstream, stall: p.Timeouts.Write, atFrame: true, atMessage: true}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			l.raw, l.readRaw = raw, l.readReady
		}
	}
	if len(early) > 0 {
		l.carry.append(early)
		l.fresh = true
	}
	l.heard.Store(int64(now()))
	return l
}

// keepalive pings a peer that was silent for the interval and has no
// forwarded ping to answer, which would prove as much. It returns when to
// look again (0 is never), and whether the peer has been silent too long.
func (l *leg) keepalive(k Keepalive, t instant) (next instant, silent bool) {
	if k.Interval <= 0 {
		return 0, false
	}
	due := instant(l.heard.Load()).add(k.Interval)
	if t < due {
		return due, false
	}
	l.mu.Lock()
	asked := l.pings.at
	var payload []byte
	switch {
	case asked >= due: // our ping is out and nothing has come since
	case l.pings.waiting(), l.withheld():
		asked = due // the forwarded ping stands for ours, or ours would wait, too
	default:
		payload = l.pings.ping(t)
		asked = t
	}
	l.mu.Unlock()
	if payload != nil {
		l.inject(frame.Ping, payload)
	}
	reached := l.reaches(due.add(-k.Interval), t)
	if reached {
		asked = max(asked, l.passage.reached)
	} else {
		// Who is still taking what is before the ping can't answer it yet.
		asked = max(asked, l.passage.moved.add(k.Interval))
	}
	over := asked.add(k.Timeout)
	switch {
	case t >= over && l.unread():
		return t.add(lookAgain), false // it is we who are late
	case t >= over:
		return 0, true
	case !reached:
		return min(over, t.add(lookAgain)), false
	}
	// An answer may make the next ping due before that.
	return min(over, t.add(k.Interval)), false
}

// lookAgain is when a peer is looked at again that has said something which
// was not read yet.
const lookAgain = 100 * time.Millisecond

// wake makes the reader look up: its read, or the next, returns errWake.
func (l *leg) wake() {
	if l.sock != nil {
		l.sock.link.post()
		return
	}
	l.woken.Store(true)
	select {
	case l.kick <- struct{}{}:
	default:
	}
	l.conn.SetReadDeadline(time.Unix(1, 0))
}

// said reports whether our close frame is out.
func (l *leg) said() bool { return l.closed.Load() }

// insideMessage reports whether the stream that was written stands inside a
// message.
func (l *leg) insideMessage() bool {
	l.lock()
	defer l.unlock()
	return !l.atMessage
}

// begun reports whether the peer has a part of a message that is still to be
// ended. Of a stream that a failed write has cut, its writer knows more.
func (l *leg) begun() bool {
	l.lock()
	defer l.unlock()
	return !l.atMessage && l.broken == nil
}

// atBoundary reports whether a close frame could be written now, or was.
func (l *leg) atBoundary() bool {
	l.lock()
	defer l.unlock()
	return l.atFrame && l.broken == nil
}

// finish waits for a write that is under way, writes what can be written
// and reports whether our close frame is out.
func (l *leg) finish() bool {
	l.lock()
	defer l.unlock()
	l.flushLocked()
	return l.closed.Load()
}

// reset reports whether the peer has reset the connection, without reading
// it. Connections without a descriptor can't tell.
func (l *leg) reset() bool {
	if l.sock != nil {
		return l.sock.gone
	}
	raw := l.descriptor()
	return raw != nil && hungUp(raw)
}

// unread reports whether there is something of the peer to be read.
func (l *leg) unread() bool {
	if l.sock != nil {
		return readable(l.sock.fd)
	}
	there := false
	if raw := l.descriptor(); raw != nil {
		raw.Control(func(fd uintptr) { there = readable(int(fd)) })
	}
	return there
}

// descriptor returns the connection's own, or that of the one it wraps; nil
// where there is none.
func (l *leg) descriptor() syscall.RawConn {
	if l.raw != nil {
		return l.raw
	}
	if sc, ok := l.socket().(syscall.Conn); ok {
		raw, _ := sc.SyscallConn()
		return raw
	}
	return nil
}

// hurry bounds the write that is under way and all that follow, so that the
// end of a session does not wait for a peer that takes nothing.
func (l *leg) hurry(until instant) {
	if l.sock != nil {
		return // it waits for no write; its Link watches the time
	}
	l.bound.Store(int64(until))
	l.conn.SetWriteDeadline(until.time())
}

// interrupt fails a write that is under way and bounds those that follow.
func (l *leg) interrupt(until instant) {
	if l.sock != nil {
		return
	}
	if !l.tryLock() {
		l.hurry(now())
		l.lock()
	}
	defer l.unlock()
	l.hurry(until)
}

// closeWrite ends the stream that was written; the peer may still send.
func (l *leg) closeWrite() {
	if l.sock != nil {
		l.sock.fin = true
		return
	}
	if c, ok := l.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

// linger closes the connection after the peer has read our close frame:
// closing a socket with unread data resets it, and a reset can overtake
// what was sent before.
func (l *leg) linger(until instant) {
	defer l.conn.Close()
	if !l.finish() {
		return
	}
	l.closeWrite()
	for now() < until {
		buf, _, err := l.read(until)
		if err == errWake {
			continue
		}
		if err != nil {
			return
		}
		l.consumed(buf, nil)
	}
}

// abort resets the connection: the peer must not take what it has for whole.
func (l *leg) abort() {
	if l.sock != nil {
		l.sock.abort = true
		return
	}
	conn := l.socket()
	if t, ok := conn.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	conn.Close()
}

// socket returns the connection itself, or the one that it wraps: TLS's.
func (l *leg) socket() net.Conn {
	conn := l.conn
	for {
		t, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = t.NetConn()
	}
}
