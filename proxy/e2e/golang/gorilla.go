package golang

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

var gorillaClient = play.Client{
	Lacks: []string{play.Fragments},
	Open: func(ctx context.Context, url string, c play.Case) (play.Session, error) {
		d := websocket.Dialer{Subprotocols: c.Protocols, EnableCompression: c.Deflate}
		conn, resp, err := d.DialContext(ctx, url, header(c.Headers))
		if errors.Is(err, websocket.ErrBadHandshake) {
			body, _ := io.ReadAll(resp.Body)
			return nil, &play.Refused{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
		}
		if err != nil {
			return nil, err
		}
		s := &gorillaSession{gorillaConn: gorillaConn{conn}, resp: resp, events: make(chan play.Event, inbox)}
		go s.read()
		return s, nil
	},
}

type gorillaConn struct{ conn *websocket.Conn }

func (c gorillaConn) Text(data string) error {
	return c.conn.WriteMessage(websocket.TextMessage, []byte(data))
}

func (c gorillaConn) Binary(data []byte) error {
	return c.conn.WriteMessage(websocket.BinaryMessage, data)
}

func (c gorillaConn) Fragments([][]byte) error { return errors.ErrUnsupported }

func (c gorillaConn) Ping(data string) error {
	return c.conn.WriteControl(websocket.PingMessage, []byte(data), time.Now().Add(time.Second))
}

func (c gorillaConn) Close(code int, reason string) error {
	if code == 0 {
		code = websocket.CloseNoStatusReceived // formatted as no code
	}
	return c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

func (c gorillaConn) Abort() error { return abort(c.conn.NetConn()) }

func gorillaEnd(err error) (code int, reason string) {
	if end, ok := errors.AsType[*websocket.CloseError](err); ok {
		// The library makes an unexpected EOF a CloseError with a reason.
		if end.Code == websocket.CloseAbnormalClosure {
			return end.Code, ""
		}
		return end.Code, end.Text
	}
	return 1006, ""
}

type gorillaSession struct {
	gorillaConn
	resp   *http.Response
	events chan play.Event
}

func (s *gorillaSession) Subprotocol() string       { return s.conn.Subprotocol() }
func (s *gorillaSession) Header(name string) string { return s.resp.Header.Get(name) }
func (s *gorillaSession) Events() <-chan play.Event { return s.events }

func (s *gorillaSession) read() {
	defer s.conn.Close()
	s.conn.SetPongHandler(func(data string) error {
		s.events <- play.Event{Kind: "pong", Data: []byte(data)}
		return nil
	})
	for {
		kind, data, err := s.conn.ReadMessage()
		if err != nil {
			code, reason := gorillaEnd(err)
			s.events <- play.Event{Kind: "close", Code: code, Reason: reason}
			return
		}
		s.events <- play.Event{Kind: gorillaKind(kind), Data: data}
	}
}

func gorillaKind(kind int) string {
	if kind == websocket.BinaryMessage {
		return "binary"
	}
	return "text"
}

func gorillaServer(reports *play.Reports) http.Handler {
	up := websocket.Upgrader{
		Subprotocols:      play.Protocols,
		EnableCompression: true,
		CheckOrigin:       func(*http.Request) bool { return true },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if play.Refuse(w, r) {
			return
		}
		conn, err := up.Upgrade(w, r, answer())
		if err != nil {
			return
		}
		defer conn.Close()
		b, err := play.NewBackend(r, gorillaConn{conn}, reports)
		conn.SetPongHandler(b.Pong)
		for err == nil {
			var kind int
			var data []byte
			if kind, data, err = conn.ReadMessage(); err == nil {
				err = b.Message(gorillaKind(kind), data)
			}
		}
		b.Closed(gorillaEnd(err))
	})
}
