package relay

import (
	"errors"
	"io"
	"net"
	"os"
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
	readBy instant       // when to stop reading a failed or left upstream; guarded by the link's mu

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

	bound atomic.Int64 // instant that no write goes beyond; 0 is none
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
	waiting := l.pings.waiting()
	switch {
	case asked >= due: // our ping is out and nothing has come since
	case waiting:
		asked = due // the forwarded ping stands for ours
	default:
		asked = t
	}
	var payload []byte
	if asked == t && !waiting {
		payload = l.pings.ping(t)
	}
	l.mu.Unlock()
	if payload != nil {
		l.inject(frame.Ping, payload)
	}
	if over := asked.add(k.Timeout); t < over {
		// An answer may make the next ping due before that.
		return min(over, t.add(k.Interval)), false
	}
	if l.unread() {
		return t.add(lookAgain), false // it is we who are late
	}
	return 0, true
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

// read returns the next chunk: what was left of the last one with what has
// come since. While there is nothing, no buffer is held on a plain socket.
// The caller gives the buffer back with consumed. It returns errWake when
// woken, or at the instant until (0 is never).
func (l *leg) read(until instant) (*buffer, int, error) {
	if l.fresh {
		l.fresh = false
		buf := getBuffer(l.carry.len())
		n := copy(buf.b, l.carry.bytes())
		l.carry.reset()
		return buf, n, nil
	}
	if l.roused() {
		return nil, 0, errWake
	}
	if l.deadline != until {
		if err := l.setReadDeadline(until); err != nil {
			return nil, 0, err
		}
		if l.roused() {
			return nil, 0, errWake
		}
	}
	buf, n, err := l.wait()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.deadline = -1
			l.woken.Store(false)
			return nil, 0, errWake
		}
		return nil, 0, err
	}
	l.large = n == len(buf.b) || l.large && n > smallBuffer
	l.heard.Store(int64(now()))
	return buf, n, nil
}

// roused reports whether the leg was woken, once.
func (l *leg) roused() bool {
	if !l.woken.Load() || !l.woken.Swap(false) {
		return false
	}
	l.deadline = -1 // waking has moved it
	return true
}

func (l *leg) setReadDeadline(until instant) error {
	l.deadline = until
	if until == 0 {
		return l.conn.SetReadDeadline(time.Time{})
	}
	return l.conn.SetReadDeadline(until.time())
}

// wait blocks until bytes are there and reads them behind the carry.
func (l *leg) wait() (*buffer, int, error) {
	if l.raw != nil {
		if err := l.raw.Read(l.readRaw); err != nil {
			return nil, 0, err
		}
		buf, n, err := l.chunk, l.n, l.readErr
		l.chunk, l.readErr = nil, nil
		return buf, n, err
	}
	// A connection without a descriptor, such as TLS: wait with a few bytes
	// of the leg's own, so that a buffer is taken only when data is in hand.
	if l.front == nil {
		l.front = make([]byte, frontBuffer)
	}
	n, err := l.conn.Read(l.front)
	if n == 0 {
		return nil, 0, noEOF(err)
	}
	buf := l.nextBuffer()
	off := copy(buf.b, l.carry.bytes())
	off += copy(buf.b[off:], l.front[:n])
	l.carry.reset()
	if n == len(l.front) {
		// What else of a record is in hand is taken, without waiting for the
		// next: these bytes may be all that the peer has to say. An error
		// comes again.
		l.deadline = -1
		l.conn.SetReadDeadline(time.Unix(1, 0))
		n, _ = l.conn.Read(buf.b[off:])
		off += n
	}
	return buf, off, nil
}

// frontBuffer is what a leg without a descriptor holds to wait with: enough
// for most messages, in bytes.
const frontBuffer = 512

func noEOF(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func (l *leg) nextBuffer() *buffer {
	size := smallBuffer
	if l.large {
		size = largeBuffer
	}
	// The carry is less than a header or a control frame, but for early
	// bytes; there has to be room behind it.
	return getBuffer(max(size, l.carry.len()+smallBuffer/2))
}

// consumed takes a chunk's unconsumed rest back and releases the buffer.
func (l *leg) consumed(buf *buffer, rest []byte) {
	l.carry.append(rest)
	buf.release()
}

// lock takes the write lock. A leg on a loop has one writer and none.
func (l *leg) lock() {
	if l.sock == nil {
		l.wmu.Lock()
	}
}

func (l *leg) tryLock() bool { return l.sock != nil || l.wmu.TryLock() }

// letGo is unlock for who has nothing more to write.
func (l *leg) letGo() {
	if l.sock == nil {
		l.wmu.Unlock()
	}
}

// mark says where a span of bytes has its last boundaries: the offset
// behind the last frame's and the last message's end, or -1 for none.
type mark struct{ frame, message int }

var noMark = mark{-1, -1}

// write writes p, whose last boundaries m names, and whatever waits for a
// boundary. It returns how many bytes of p the socket took.
func (l *leg) write(p []byte, m mark) (int, error) {
	l.lock()
	n, err := l.writeLocked(p, m)
	l.settle()
	return n, err
}

func (l *leg) writeLocked(p []byte, m mark) (int, error) {
	if !l.pending.Load() || l.late {
		return l.send(p, m)
	}
	if err := l.flushLocked(); err != nil {
		return 0, err
	}
	// Close frames, pings and pushes wait for a boundary; a span may hold
	// the only one for long.
	at := l.wanted(m)
	if at <= 0 || at >= len(p) {
		return l.send(p, m)
	}
	n, err := l.send(p[:at], m.before(at))
	if err != nil {
		return n, err
	}
	if err := l.flushLocked(); err != nil {
		return n, err
	}
	// What a loop's socket has not taken of the first part waits in its
	// backlog, with the second behind it: then the socket takes none of that.
	k, err := l.send(p[at:], m.after(at))
	return n + k, err
}

// wanted returns the boundary in a span that something waits for, or 0.
func (l *leg) wanted(m mark) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.controls) > 0, len(l.closing) > 0 && !l.polite:
		return m.frame
	case len(l.messages) > 0, len(l.closing) > 0:
		return m.message
	}
	return 0
}

// before and after cut a mark at an offset that is one of its boundaries.
func (m mark) before(at int) mark {
	b := mark{at, -1}
	if m.message >= at {
		b.message = at
	}
	return b
}

func (m mark) after(at int) mark {
	a := noMark
	if m.frame > at {
		a.frame = m.frame - at
	}
	if m.message > at {
		a.message = m.message - at
	}
	return a
}

// send writes p and moves the boundary state. A long p is written in parts:
// a peer that takes it slowly takes it.
func (l *leg) send(p []byte, m mark) (int, error) {
	if l.closed.Load() {
		return 0, errClosed
	}
	if l.broken != nil {
		return 0, l.broken
	}
	if len(p) == 0 {
		return 0, nil
	}
	if l.sock != nil {
		return l.offer(p, m)
	}
	n := 0
	for n < len(p) {
		l.arm()
		k, err := l.conn.Write(p[n:min(len(p), n+largeBuffer)])
		n += k
		if err != nil {
			l.broken = err
			l.atFrame, l.atMessage = false, false
			return n, err
		}
	}
	l.atFrame = m.frame == len(p)
	l.atMessage = m.message == len(p)
	return n, nil
}

// arm sets the write deadline anew, only when a quarter of the stall time
// has passed since it last was, so that a busy leg pays for it rarely.
func (l *leg) arm() {
	if l.stall <= 0 {
		return
	}
	t := now()
	if l.armed != 0 && t <= l.armed.add(l.stall/4) {
		return
	}
	l.armed = t
	due := t.add(l.stall + l.stall/4)
	l.conn.SetWriteDeadline(earliest(due, instant(l.bound.Load())).time())
	if b := instant(l.bound.Load()); b != 0 && b < due {
		l.conn.SetWriteDeadline(b.time()) // hurry came in between
	}
}

// control writes one control frame of the other side at once; the stream
// stands at a frame boundary and stays inside its message, if it is in one.
func (l *leg) control(p []byte) error {
	if l.backed() {
		l.await(p)
		return nil
	}
	l.lock()
	inside := l.atFrame && !l.atMessage
	_, err := l.writeLocked(p, mark{len(p), len(p)})
	if err == nil && inside && !l.closed.Load() {
		l.atMessage = false
	}
	l.settle()
	return err
}

// settle lets go of the write lock after a write, which may have brought
// the stream to the boundary that something waits for.
func (l *leg) settle() {
	if l.pending.Load() {
		l.asked.Store(true)
	}
	l.unlock()
}

// inject queues one control frame of our own and writes it as soon as the
// stream stands between two frames.
func (l *leg) inject(op frame.Opcode, payload []byte) {
	l.mu.Lock()
	// One frame of each kind at a time is all that we ever owe, but a peer
	// can ask for pongs faster than it takes them.
	if len(l.controls) < maxControls {
		l.controls = appendFrame(l.controls, op, payload, l.masked, 0)
	}
	l.pending.Store(true)
	l.mu.Unlock()
	l.flush()
}

// push queues a whole message of our own and writes it as soon as the
// stream stands between two messages.
func (l *leg) push(frames []byte) error {
	l.mu.Lock()
	if len(l.closing) > 0 {
		l.mu.Unlock()
		return errClosed
	}
	if len(l.messages)+len(frames) > maxPushes && len(l.messages) > 0 {
		l.mu.Unlock()
		return errPushFull
	}
	l.messages = append(l.messages, frames...)
	l.pending.Store(true)
	l.mu.Unlock()
	if l.sock != nil {
		l.wake() // only its loop writes
	} else {
		l.flush()
	}
	return nil
}

// close queues our close frame; the first one counts. A polite one waits
// for a message boundary, others for a frame's.
func (l *leg) close(code int, reason string, polite bool) {
	var body [frame.MaxControl]byte
	l.closeWith(frame.AppendClose(body[:0], code, reason), polite)
}

// closeWith is close with a payload that is already there.
func (l *leg) closeWith(payload []byte, polite bool) {
	l.queueClose(payload, polite)
	l.flush()
}

// queueClose is closeWith that leaves the writing to whoever comes next.
func (l *leg) queueClose(payload []byte, polite bool) {
	l.mu.Lock()
	if len(l.closing) == 0 {
		l.closing = appendFrame(nil, frame.Close, payload, l.masked, 0)
		l.polite = polite
	} else if !polite {
		l.polite = false
	}
	l.pending.Store(true)
	l.mu.Unlock()
}

// flush writes what waits, unless another goroutine holds the write lock:
// that one will, when it lets go. Nobody who queues a frame waits for it.
func (l *leg) flush() {
	l.asked.Store(true)
	for l.asked.Load() && l.tryLock() {
		l.asked.Store(false)
		l.flushLocked()
		l.letGo()
	}
}

// unlock lets go of the write lock. What was asked for while it was held
// is this goroutine's to write.
func (l *leg) unlock() {
	l.letGo()
	if l.asked.Load() {
		l.flush()
	}
}

// flushLocked writes what the current boundary allows: control frames, then
// messages, then the close frame, after which nothing follows.
func (l *leg) flushLocked() error {
	if l.closed.Load() {
		return errClosed
	}
	l.mu.Lock()
	if l.backed() && !l.closesBehind() {
		l.mu.Unlock()
		return nil
	}
	var out []byte
	last := false
	atMessage := l.atMessage
	if l.atFrame {
		out, l.controls = l.controls, nil
		if l.atMessage {
			if len(out) == 0 {
				out = l.messages
			} else {
				out = append(out, l.messages...)
			}
			l.messages = nil
		}
		if len(l.closing) > 0 && (l.atMessage || !l.polite) {
			out = append(out, l.closing...)
			last = true
		}
	}
	if last || len(l.controls)+len(l.messages)+len(l.closing) == 0 {
		l.pending.Store(false)
	}
	l.mu.Unlock()
	if len(out) == 0 {
		return nil
	}
	_, err := l.send(out, mark{len(out), len(out)})
	if err == nil {
		l.atMessage = atMessage
	}
	if last {
		l.closed.Store(true)
	}
	if err == nil && last {
		err = errClosed
	}
	return err
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
