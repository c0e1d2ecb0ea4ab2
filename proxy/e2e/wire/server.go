package wire

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is a scripted upstream: script has each of its connections, from
// the client's first byte, and closes it.
type Server struct {
	Address string
	l       net.Listener
	all     sync.WaitGroup
}

// Listen starts a Server on a free port of this machine.
func Listen(script func(*Conn)) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: l.Addr().String(), l: l}
	s.all.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			s.all.Go(func() {
				defer raw.Close()
				script(&Conn{TCPConn: raw.(*net.TCPConn), Reader: bufio.NewReader(raw)})
			})
		}
	})
	return s, nil
}

// Close stops listening and waits for the scripts.
func (s *Server) Close() {
	_ = s.l.Close()
	s.all.Wait()
}

// Hear reads the client's handshake.
func (c *Conn) Hear() error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var err error
	c.Request, err = http.ReadRequest(c.Reader)
	return err
}

// Welcome returns a good 101 for the request that was heard; more is further
// header lines.
func (c *Conn) Welcome(more ...string) []byte {
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	fmt.Fprintf(&b, "Sec-WebSocket-Accept: %s\r\n", Accept(c.Request.Header.Get("Sec-WebSocket-Key")))
	for _, line := range more {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// Open hears the handshake and welcomes the client.
func (c *Conn) Open() error {
	if err := c.Hear(); err != nil {
		return err
	}
	_, err := c.Write(c.Welcome())
	return err
}
