package wire

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

func checksum(data []byte) uint32 { return crc32.ChecksumIEEE(data) }

// Conn is one end of a WebSocket connection, after the handshake.
type Conn struct {
	*net.TCPConn
	Reader *bufio.Reader
	// Answer is the server's, on a client's Conn; Request is the client's, on
	// a server's.
	Answer  *http.Response
	Request *http.Request
	// Whole joins the fragments of a message in what Next returns.
	Whole bool
	// Inflate, when there is one, decompresses what Next returns.
	Inflate *Inflater
	// Seen is for what a script has read and noted.
	Seen []string
	// Mute leaves pings and closes unanswered.
	Mute bool

	client bool
	begun  []Frame // the fragments so far
	closed bool    // a close was sent
}

// Hello returns the bytes of a good opening handshake; more is further
// header lines.
func Hello(host, target string, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", target, host)
	b.WriteString("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
	b.WriteString("Sec-WebSocket-Key: " + sampleKey + "\r\n")
	for _, line := range more {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// sampleKey is the key of RFC 6455 section 1.3: it needs to be no secret.
const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// Accept returns the Sec-WebSocket-Accept for key (RFC 6455 section 4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// patience bounds every wait for the peer.
const patience = 10 * time.Second

// Dial sends hello, as Hello makes it, with early right behind it in one
// segment, and reads the answer. An answer other than 101 is no error.
func Dial(address, hello string, early ...byte) (*Conn, error) {
	raw, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	c := &Conn{TCPConn: raw.(*net.TCPConn), Reader: bufio.NewReader(raw), client: true}
	if err := c.dial(append([]byte(hello), early...)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) dial(bytes []byte) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(bytes); err != nil {
		return fmt.Errorf("send the handshake: %w", err)
	}
	var err error
	if c.Answer, err = http.ReadResponse(c.Reader, nil); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if c.Answer.StatusCode != http.StatusSwitchingProtocols {
		return nil
	}
	if got, want := c.Answer.Header.Get("Sec-WebSocket-Accept"), Accept(sampleKey); got != want {
		return fmt.Errorf("the answer's Sec-WebSocket-Accept is %q, not %q", got, want)
	}
	return nil
}

// Send writes frames in one segment, as they are.
func (c *Conn) Send(frames ...Frame) error {
	var b []byte
	for _, f := range frames {
		b = f.Append(b)
		c.closed = c.closed || f.Op == Close
	}
	_, err := c.Write(b)
	return err
}

// Abort resets the connection.
func (c *Conn) Abort() error {
	if err := c.SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}

// Next reads one frame, or one message, and answers it where that is due. A
// ping of stent's own, which is known by 8 random bytes, is answered unseen.
func (c *Conn) Next() (Frame, error) {
	for {
		f, err := c.next()
		if err != nil || c.Mute {
			return f, err
		}
		switch {
		case f.Op == Ping:
			_ = c.answer(Frame{Op: Pong, Payload: f.Payload})
			if len(f.Payload) == 8 {
				continue
			}
		case f.Op == Close && !c.closed:
			_ = c.answer(Frame{Op: Close, Payload: f.Payload})
		}
		return f, nil
	}
}

// answer sends f; when the peer has gone already, reading on tells.
func (c *Conn) answer(f Frame) error {
	if c.client {
		f = f.Masks()
	}
	return c.Send(f)
}

func (c *Conn) next() (Frame, error) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return Frame{}, err
		}
		f, err := Read(c.Reader)
		if err != nil || !c.Whole || f.Op >= Close {
			return f, err
		}
		if f.Op != Continuation {
			c.begun = nil
		}
		if c.begun = append(c.begun, f); !f.Open {
			return c.inflated(join(c.begun))
		}
	}
}

// inflated returns f decompressed, if it was compressed and that is wanted.
func (c *Conn) inflated(f Frame) (Frame, error) {
	if c.Inflate == nil || f.RSV != 4 {
		return f, nil
	}
	var err error
	f.RSV = 0
	f.Payload, err = c.Inflate.Inflate(f.Payload)
	return f, err
}

// join returns the message whose fragments are all.
func join(all []Frame) Frame {
	whole := all[0]
	whole.Open = false
	for _, f := range all[1:] {
		whole.Payload = append(whole.Payload, f.Payload...)
	}
	return whole
}

// Rest returns a row of all frames to the connection's end, and that end:
// "fin", "rst", either of them "inside a frame", or "silence" when nothing
// came for a long time. It closes the connection.
func (c *Conn) Rest() []string {
	defer c.Close()
	var row []string
	for {
		f, err := c.Next()
		if err != nil {
			return append(row, end(err))
		}
		row = append(row, f.String())
	}
}

// UntilClose is Rest for a well-behaved end: it returns with the first close
// frame.
func (c *Conn) UntilClose() []string {
	var row []string
	for {
		f, err := c.Next()
		if err != nil {
			return append(row, end(err))
		}
		row = append(row, f.String())
		if f.Op == Close {
			return row
		}
	}
}

func end(err error) string {
	how := err.Error()
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		how = "fin"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		how = "rst"
	case errors.As(err, &timeout) && timeout.Timeout():
		how = "silence"
	}
	if strings.HasPrefix(err.Error(), "inside a frame") || errors.Is(err, io.ErrUnexpectedEOF) {
		how += " inside a frame"
	}
	return how
}
