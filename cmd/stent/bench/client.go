package bench

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

const (
	// inlineBytes is what a fresh socket takes without blocking on any
	// system: up to so many unanswered bytes are written by whoever posts
	// them, more by the connection's sender.
	inlineBytes = 16 << 10
	// maxOwed bounds the messages of one connection that wait to be sent or
	// answered.
	maxOwed = 1 << 16

	minRead = 4 << 10
	maxRead = 64 << 10
)

// What ends a connection, beside its socket's errors.
var (
	errClosed     = errors.New("closed by the server")
	errBroken     = errors.New("broken echo")
	errUnasked    = errors.New("broken echo: a message that was not sent")
	errFragment   = errors.New("broken echo: fragments out of order")
	errKind       = errors.New("broken echo: not a binary message")
	errMasked     = errors.New("masked frame from the server")
	errReserved   = errors.New("reserved bit in the server's frame")
	errOverloaded = fmt.Errorf("more than %d messages unanswered on one connection", maxOwed)
)

// client is one WebSocket that sends numbered messages and checks that each
// comes back as it was.
type client struct {
	conn    net.Conn
	message *message
	id      uint32
	wake    chan struct{} // for the sender, when it has to write
	over    atomic.Bool   // it is not read any more

	// Owned by the one reader.
	in      []byte // what was read: in[at:]
	at      int
	room    []byte // the read buffer
	left    int64  // payload bytes of the frame at hand
	inFrame bool
	opcode  frame.Opcode // of the frame at hand
	fin     bool
	offset  int    // in the message at hand
	partial bool   // its last frame is yet to come
	control []byte // payload of the control frame at hand
	times   []int64

	mu       sync.Mutex
	due      queue  // when the messages that lack their echo were to be sent
	answered uint32 // number of the oldest of them
	unsent   int    // so many of the newest are not written yet
	pong     []byte // a frame to write
	writing  bool   // somebody does
	out      []byte
	err      error // of a write
}

// newClient takes over a connection and what was read from it. inFlight is
// how many messages it is expected to have under way.
func newClient(conn net.Conn, r *bufio.Reader, m *message, id uint32, inFlight int) *client {
	c := &client{conn: conn, message: m, id: id, wake: make(chan struct{}, 1)}
	c.room = make([]byte, min(max(minRead, r.Buffered(), inFlight*len(m.frame)), maxRead))
	c.in = c.room[:r.Buffered()]
	r.Read(c.in)
	return c
}

// post sends n messages that were due at this time. It does not block: what
// the socket might not take at once is left to the sender. An error says that
// they are not sent; one that comes later leaves them without an echo, and
// shows in the reader.
func (c *client) post(n int, due int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.due.len()+n > maxOwed {
		return errOverloaded
	}
	for range n {
		c.due.push(due)
	}
	c.unsent += n
	c.kick()
	return nil
}

// kick has somebody write what is to be written. It is called with mu held.
func (c *client) kick() {
	if c.writing {
		return
	}
	if c.due.len()*len(c.message.frame) <= inlineBytes {
		c.flush()
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // it has been told
	}
}

// send writes what post does not, until stop is closed. A failed write shows
// in the reader, too.
func (c *client) send(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		if !c.writing {
			c.flush()
		}
		c.mu.Unlock()
	}
}

// flush writes all that is to be written. It is called with mu held, and
// gives it up while it writes.
func (c *client) flush() {
	m := c.message
	c.writing = true
	for c.err == nil && (c.unsent > 0 || len(c.pong) > 0) {
		c.out = append(c.out[:0], c.pong...)
		c.pong = c.pong[:0]
		var tail []byte
		for tail == nil && c.unsent > 0 && len(c.out) < inlineBytes {
			number := c.answered + uint32(c.due.len()-c.unsent)
			c.out = m.appendHead(c.out, c.id, number)
			if rest := m.frame[m.head():]; len(rest) < inlineBytes {
				c.out = append(c.out, rest...)
			} else {
				tail = rest
			}
			c.unsent--
		}
		c.mu.Unlock()
		err := c.write(c.out, tail)
		c.mu.Lock()
		c.err = err
	}
	c.writing = false
}

func (c *client) write(head, tail []byte) error {
	if tail == nil {
		_, err := c.conn.Write(head)
		return err
	}
	_, err := (&net.Buffers{head, tail}).WriteTo(c.conn)
	return err
}

// receive reads once and returns when the messages that came whole with it
// were due. The slice is good until the next call.
func (c *client) receive() ([]int64, error) {
	c.times = c.times[:0]
	if c.at == len(c.in) || !c.inFrame && c.short() {
		n := copy(c.room, c.in[c.at:])
		c.at = 0
		read, err := c.conn.Read(c.room[n:])
		c.in = c.room[:n+read]
		if read == 0 {
			return nil, err
		}
	}
	return c.times, c.parse()
}

// short reports whether the bytes at hand end inside a header.
func (c *client) short() bool {
	_, n, err := frame.ParseHeader(c.in[c.at:])
	return n == 0 && err == nil
}

// parse takes the frames at hand apart.
func (c *client) parse() error {
	for {
		if !c.inFrame {
			h, n, err := frame.ParseHeader(c.in[c.at:])
			if err != nil {
				return err
			}
			if n == 0 {
				return nil
			}
			c.at += n
			if err := c.begin(h); err != nil {
				return err
			}
		}
		n := int(min(int64(len(c.in)-c.at), c.left))
		if err := c.payload(c.in[c.at : c.at+n]); err != nil {
			return err
		}
		c.at += n
		if c.left -= int64(n); c.left > 0 {
			return nil
		}
		c.inFrame = false
		if err := c.end(); err != nil {
			return err
		}
	}
}

// begin looks at a frame's header.
func (c *client) begin(h frame.Header) error {
	switch {
	case h.Masked:
		return errMasked // RFC 6455 section 5.1
	case h.Rsv != 0:
		return errReserved
	}
	c.inFrame, c.opcode, c.fin, c.left = true, h.Opcode, h.Fin, h.Length
	if h.Opcode.Control() {
		c.control = c.control[:0]
		return nil
	}
	switch {
	case c.partial != (h.Opcode == frame.Continuation):
		return errFragment
	case h.Opcode == frame.Text:
		return errKind
	}
	c.partial = true
	return nil
}

// payload takes a part of the frame at hand.
func (c *client) payload(b []byte) error {
	if c.opcode.Control() {
		c.control = append(c.control, b...)
		return nil
	}
	// The number is the reader's to read: only it changes it.
	if !c.message.matches(c.id, c.answered, c.offset, b) {
		return errBroken
	}
	c.offset += len(b)
	return nil
}

// end takes a whole frame.
func (c *client) end() error {
	switch c.opcode {
	case frame.Close:
		return errClosed
	case frame.Ping:
		c.mu.Lock()
		defer c.mu.Unlock()
		// Of several pings the latest is enough (RFC 6455 section 5.5.3).
		c.pong = frame.AppendFrame(c.pong[:0], frame.Header{Fin: true, Opcode: frame.Pong, Masked: true, Key: c.message.key}, c.control)
		c.kick()
		return nil
	case frame.Pong:
		return nil
	}
	if !c.fin {
		return nil
	}
	if c.offset != len(c.message.plain) {
		return errBroken
	}
	c.offset, c.partial = 0, false
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due.len() == c.unsent {
		return errUnasked
	}
	c.times = append(c.times, c.due.pop())
	c.answered++
	return nil
}

// owes reports whether an echo is due.
func (c *client) owes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due.len() > 0
}

// pending returns when the messages without an echo were due.
func (c *client) pending() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due.all()
}

// echo sends one message and waits for it, for those who have no reader.
func (c *client) echo(due int64, timeout time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(timeout))
	defer c.conn.SetReadDeadline(time.Time{})
	if len(c.message.frame) > inlineBytes {
		stop, sent := make(chan struct{}), make(chan struct{})
		go func() { defer close(sent); c.send(stop) }()
		defer func() { <-sent }()
		defer close(stop)
	}
	if err := c.post(1, due); err != nil {
		return err
	}
	for {
		times, err := c.receive()
		if len(times) > 0 || err != nil {
			return err
		}
	}
}

// closeTimeout bounds a closing handshake.
const closeTimeout = time.Second

// goodbye begins the closing handshake, for which closeTimeout is left from
// now on. A connection that is inside a message is just ended.
func (c *client) goodbye() error {
	c.mu.Lock()
	busy := c.writing || c.unsent > 0 || c.err != nil
	c.mu.Unlock()
	if busy {
		return c.conn.Close()
	}
	c.conn.SetDeadline(time.Now().Add(closeTimeout))
	h := frame.Header{Fin: true, Opcode: frame.Close, Masked: true, Key: c.message.key}
	_, err := c.conn.Write(frame.AppendFrame(nil, h, frame.AppendClose(nil, 1000, "")))
	return err
}

// leave makes a whole closing handshake, for those who have no reader: the
// end of the connection is the server's to make (RFC 6455 section 7.1.1).
func (c *client) leave(timeout time.Duration) error {
	if err := c.goodbye(); err != nil {
		return fmt.Errorf("send the close frame: %w", err)
	}
	c.conn.SetDeadline(time.Now().Add(timeout))
	for {
		if _, err := c.receive(); errors.Is(err, errClosed) {
			break
		} else if err != nil {
			return fmt.Errorf("wait for the close frame: %w", err)
		}
	}
	var rest [1]byte
	c.conn.Read(rest[:])
	return nil
}
