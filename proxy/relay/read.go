package relay

import (
	"errors"
	"io"
	"os"
	"time"
)

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
