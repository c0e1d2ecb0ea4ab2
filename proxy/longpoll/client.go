package longpoll

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Client is the http.ResponseWriter that a session is opened with. Where the
// session takes its connection over, that is a local one, with a Session at
// its other end; where it is refused, Client keeps status and header of the
// answer. Its user calls Close in the end.
type Client struct {
	// Status is that of a refusal; 0 where there is none.
	Status int

	table   *Table
	limit   int64
	header  http.Header
	session *Session
	kept    bool
}

// Client returns a Client for one session, whose messages are bounded by
// limit bytes.
func (t *Table) Client(limit int64) *Client {
	return &Client{table: t, limit: limit, header: make(http.Header)}
}

// Header implements http.ResponseWriter.
func (c *Client) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *Client) WriteHeader(status int) {
	if c.Status == 0 && status >= 200 {
		c.Status = status
	}
}

// Write implements http.ResponseWriter. A long-poll client has no use for the
// body of a refusal.
func (c *Client) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	return len(p), nil
}

// Hijack implements http.Hijacker.
func (c *Client) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	ours, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	return ours, bufio.NewReadWriter(bufio.NewReaderSize(ours, 16), bufio.NewWriterSize(ours, 16)), nil
}

// dial makes the connection and starts its reader.
func (c *Client) dial() (net.Conn, error) {
	connect := c.table.pair
	if connect == nil {
		connect = pair
	}
	ours, theirs, err := connect()
	if err != nil {
		return nil, err
	}
	t := c.table
	s := &Session{table: t, conn: theirs, limit: c.limit, head: make(chan http.Header, 1), writing: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		ours.Close()
		theirs.Close()
		return nil, fmt.Errorf("make a long-poll session: %w", net.ErrClosed)
	}
	s.wrote()
	c.session = s
	t.readers.Go(s.read)
	return ours, nil
}

// Keep makes the session that was opened known under its key and returns its
// token, and the header that the upstream's answer and the plugs have for the
// client. It returns no token where the session has none to be known by: it
// was refused, or is over already.
func (c *Client) Keep(key, route string) (token string, header http.Header) {
	s := c.session
	if s == nil {
		return "", nil
	}
	header = <-s.head
	if header == nil {
		return "", nil
	}
	for name := range header {
		if name == "Upgrade" || name == "Connection" || strings.HasPrefix(name, "Sec-Websocket-") || strings.HasPrefix(name, "Content-") {
			delete(header, name)
		}
	}
	s.key, s.route = key, route
	if !c.table.add(s) {
		return "", nil
	}
	c.kept = true
	s.arrive()
	return c.table.token(key), header
}

// Close ends a session that was not kept.
func (c *Client) Close() {
	if c.session != nil && !c.kept {
		c.session.conn.Close()
	}
}
