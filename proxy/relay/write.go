package relay

import (
	"github.com/stentproxy/stent/proxy/frame"
)

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
		l.sent.Add(uint64(k))
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
