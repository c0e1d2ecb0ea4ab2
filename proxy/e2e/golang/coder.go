package golang

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/coder/websocket"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

var coderClient = play.Client{
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
		s := &coderSession{coderConn: coderConn{conn}, resp: resp, events: make(chan play.Event, inbox)}
		go s.read()
		return s, nil
	},
}

type coderConn struct{ conn *websocket.Conn }

func (c coderConn) Text(data string) error {
	return c.conn.Write(context.Background(), websocket.MessageText, []byte(data))
}

func (c coderConn) Binary(data []byte) error {
	return c.conn.Write(context.Background(), websocket.MessageBinary, data)
}

func (c coderConn) Fragments(parts [][]byte) error {
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

func (c coderConn) Ping(string) error { return errors.ErrUnsupported }

func (c coderConn) Close(code int, reason string) error {
	if code == 0 {
		code = int(websocket.StatusNoStatusRcvd) // written as no code
	}
	// The reader tells how the closing handshake ended.
	go func() { _ = c.conn.Close(websocket.StatusCode(code), reason) }()
	return nil
}

func (c coderConn) Abort() error { return c.conn.CloseNow() }

func coderEnd(err error) (int, string) {
	if end, ok := errors.AsType[websocket.CloseError](err); ok {
		return int(end.Code), end.Reason
	}
	return 1006, ""
}

type coderSession struct {
	coderConn
	resp   *http.Response
	events chan play.Event
}

func (s *coderSession) Subprotocol() string       { return s.conn.Subprotocol() }
func (s *coderSession) Header(name string) string { return s.resp.Header.Get(name) }
func (s *coderSession) Events() <-chan play.Event { return s.events }

func (s *coderSession) read() {
	for {
		kind, data, err := s.conn.Read(context.Background())
		if err != nil {
			code, reason := coderEnd(err)
			s.events <- play.Event{Kind: "close", Code: code, Reason: reason}
			return
		}
		s.events <- play.Event{Kind: coderKind(kind), Data: data}
	}
}

func coderKind(kind websocket.MessageType) string {
	if kind == websocket.MessageBinary {
		return "binary"
	}
	return "text"
}

func coderServer(reports *play.Reports) http.Handler {
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
		b, err := play.NewBackend(r, coderConn{conn}, reports)
		for err == nil {
			var kind websocket.MessageType
			var data []byte
			if kind, data, err = conn.Read(context.Background()); err == nil {
				err = b.Message(coderKind(kind), data)
			}
		}
		b.Closed(coderEnd(err))
	})
}
