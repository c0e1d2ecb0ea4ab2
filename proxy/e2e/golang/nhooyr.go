//lint:file-ignore SA1019 clients of the deprecated path are what is tested here

package golang

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/stentproxy/stent/proxy/e2e/play"
	"nhooyr.io/websocket"
)

var nhooyrClient = play.Client{
	Lacks: []string{play.Ping},
	Open: func(ctx context.Context, url string, c play.Case) (play.Session, error) {
		mode := websocket.CompressionDisabled
		if c.Deflate {
			mode = websocket.CompressionContextTakeover
		}
		conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
			Subprotocols:         c.Protocols,
			HTTPHeader:           header(c.Headers),
			CompressionMode:      mode,
			CompressionThreshold: 1,
		})
		if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(resp.Body)
			return nil, &play.Refused{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
		}
		if err != nil {
			return nil, err
		}
		conn.SetReadLimit(64 << 20)
		s := &nhooyrSession{nhooyrConn: nhooyrConn{conn: conn}, resp: resp, events: make(chan play.Event, inbox), read: make(chan play.Event, 1)}
		go s.receive()
		return s, nil
	},
}

type nhooyrConn struct {
	conn *websocket.Conn
	// end is how a close of its own ended, once it has: the library tells that
	// to the closer, and its reader only that it was closed.
	end atomic.Pointer[play.Event]
}

func (c *nhooyrConn) Text(data string) error {
	return c.conn.Write(context.Background(), websocket.MessageText, []byte(data))
}

func (c *nhooyrConn) Binary(data []byte) error {
	return c.conn.Write(context.Background(), websocket.MessageBinary, data)
}

func (c *nhooyrConn) Fragments(parts [][]byte) error {
	w, err := c.conn.Writer(context.Background(), websocket.MessageText)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return w.Close()
}

func (c *nhooyrConn) Ping(string) error { return errors.ErrUnsupported }

func (c *nhooyrConn) Close(code int, reason string) error {
	if code == 0 {
		code = int(websocket.StatusNoStatusRcvd) // written as no code
	}
	if err := c.conn.Close(websocket.StatusCode(code), reason); err != nil {
		c.end.Store(&play.Event{Kind: "close", Code: 1006})
		return nil
	}
	c.end.Store(&play.Event{Kind: "close", Code: code})
	return nil
}

func (c *nhooyrConn) Abort() error { return c.conn.CloseNow() }

func (c *nhooyrConn) ended(err error) (int, string) {
	if end := c.end.Load(); end != nil {
		return end.Code, end.Reason
	}
	return nhooyrEnd(err)
}

func nhooyrEnd(err error) (int, string) {
	if end, ok := errors.AsType[websocket.CloseError](err); ok {
		return int(end.Code), end.Reason
	}
	return 1006, ""
}

type nhooyrSession struct {
	nhooyrConn
	resp    *http.Response
	events  chan play.Event
	read    chan play.Event // the reader's end, when the session is closing
	closing atomic.Bool
}

// Close asks both how the closing handshake ended: the library's closer and
// reader race for the server's close frame, and only one of them gets it. The
// reason is left out, because the closer is not told it.
func (s *nhooyrSession) Close(code int, reason string) error {
	s.closing.Store(true)
	err := s.nhooyrConn.Close(code, reason)
	end := s.end.Load().Code
	if read := <-s.read; end == 1006 {
		end = read.Code
	}
	s.events <- play.Event{Kind: "close", Code: end}
	return err
}

func (s *nhooyrSession) Subprotocol() string       { return s.conn.Subprotocol() }
func (s *nhooyrSession) Header(name string) string { return s.resp.Header.Get(name) }
func (s *nhooyrSession) Events() <-chan play.Event { return s.events }

func (s *nhooyrSession) receive() {
	for {
		kind, data, err := s.conn.Read(context.Background())
		if err != nil {
			code, reason := nhooyrEnd(err)
			end := play.Event{Kind: "close", Code: code, Reason: reason}
			if s.closing.Load() {
				s.read <- end // Close tells
			} else {
				s.events <- end
			}
			return
		}
		s.events <- play.Event{Kind: nhooyrKind(kind), Data: data}
	}
}

func nhooyrKind(kind websocket.MessageType) string {
	if kind == websocket.MessageBinary {
		return "binary"
	}
	return "text"
}

func nhooyrServer(reports *play.Reports) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if play.Refuse(w, r) {
			return
		}
		for name, values := range answer() {
			w.Header()[name] = values
		}
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols:         play.Protocols,
			InsecureSkipVerify:   true,
			CompressionMode:      websocket.CompressionContextTakeover,
			CompressionThreshold: 1,
		})
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		conn.SetReadLimit(64 << 20)
		c := &nhooyrConn{conn: conn}
		b, err := play.NewBackend(r, c, reports)
		for err == nil {
			var kind websocket.MessageType
			var data []byte
			if kind, data, err = conn.Read(context.Background()); err == nil {
				err = b.Message(nhooyrKind(kind), data)
			}
		}
		b.Closed(c.ended(err))
	})
}
