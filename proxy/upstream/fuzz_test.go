package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// answerConn is a connection to a backend that has answered already.
type answerConn struct {
	net.Conn
	answer []byte
	read   int
	closed bool
}

func (c *answerConn) Read(b []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	c.read += n
	return n, nil
}

// Write puts the right accept value where the answer says ACCEPT: otherwise
// no 101 would get past that check.
func (c *answerConn) Write(b []byte) (int, error) {
	if req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b))); err == nil {
		c.answer = bytes.ReplaceAll(c.answer, []byte("ACCEPT"), []byte(acceptOf(req)))
	}
	return len(b), nil
}

func (c *answerConn) Close() error                    { c.closed = true; return nil }
func (c *answerConn) SetDeadline(time.Time) error     { return nil }
func (c *answerConn) SetReadDeadline(time.Time) error { return nil }

// FuzzAnswer gives a handshake whatever bytes a backend may answer: what
// comes out is a refusal that can be passed on, or an error, and no more
// than the bound was read for it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: a\r\n\r\n\x81\x00",
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
		"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 500 Oops\n\nx",
		"HTTP/1.1 000 \r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n",
	} {
		f.Add([]byte(seed))
	}
	pools := NewPools(Options{})
	p := update(f, pools, upstreamOf("ws://127.0.0.1:1"))
	l := p.targets[0].lease()
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &answerConn{answer: bytes.Clone(answer)}
		conn, err := l.shake(t.Context(), c, &Handshake{Header: []byte("Sec-WebSocket-Protocol: a\r\n")}, "")
		if err == nil && conn.Response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("accepted with %s", conn.Response.Status)
		}
		if c.read > maxAnswer {
			t.Errorf("%d bytes were read for a header", c.read)
		}
		refused, ok := errors.AsType[*Refused](err)
		if !ok {
			return
		}
		// The way of a refusal to the client must not panic.
		w := httptest.NewRecorder()
		for name, values := range refused.Response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(refused.Response.StatusCode)
		_, _ = io.Copy(io.Discard, refused.Response.Body)
		refused.Response.Body.Close()
		if !c.closed {
			t.Error("closing the body left the connection open")
		}
		if refused.Response.StatusCode == http.StatusSwitchingProtocols {
			t.Error("a 101 as a refusal")
		}
	})
}

// FuzzNewSource reads whatever is written as a target's URL.
func FuzzNewSource(f *testing.F) {
	for _, seed := range []string{"ws://a:80/x", "unix:/x", "dns+wss://a", "srv+ws://_x._tcp.a", "http://[::1]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		s, err := newSource(config.Target{URL: raw})
		if err != nil || s.found() {
			return
		}
		again, err := newSource(config.Target{URL: s.template.url})
		if err != nil || again.template.url != s.template.url {
			t.Errorf("%q becomes %q, which becomes %q, %v", raw, s.template.url, again.template.url, err)
		}
	})
}
