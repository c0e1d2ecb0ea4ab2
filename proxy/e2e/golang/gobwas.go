package golang

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

var gobwasClient = play.Client{
	Lacks: []string{play.Deflate},
	Open: func(ctx context.Context, url string, c play.Case) (play.Session, error) {
		answered := make(http.Header)
		refused := &play.Refused{}
		d := ws.Dialer{
			Protocols: c.Protocols,
			Header:    ws.HandshakeHeaderHTTP(header(c.Headers)),
			OnHeader: func(key, value []byte) error {
				answered.Add(string(key), string(value))
				return nil
			},
			OnStatusError: func(status int, _ []byte, raw io.Reader) {
				resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(resp.Body)
				*refused = play.Refused{Status: status, Header: resp.Header, Body: string(body)}
			},
		}
		conn, br, hs, err := d.Dial(ctx, url)
		if refused.Status != 0 {
			return nil, refused
		}
		if err != nil {
			return nil, err
		}
		if br == nil {
			br = bufio.NewReader(conn)
		}
		s := &gobwasSession{
			gobwasConn:  &gobwasConn{conn: conn, br: br, side: ws.StateClientSide},
			subprotocol: hs.Protocol,
			answered:    answered,
			events:      make(chan play.Event, inbox),
		}
		go s.read()
		return s, nil
	},
}

// gobwasConn is the library's low-level way of working: frames.
type gobwasConn struct {
	conn   net.Conn
	br     *bufio.Reader
	side   ws.State
	closed bool // owned by the reader; a server also closes on it
}

func (c *gobwasConn) write(f ws.Frame) error {
	if c.side.ClientSide() {
		f = ws.MaskFrame(f)
	}
	// One write for one frame: the peer sees what a real user's buffer sends.
	var out bytes.Buffer
	if err := ws.WriteFrame(&out, f); err != nil {
		return err
	}
	_, err := c.conn.Write(out.Bytes())
	return err
}

func (c *gobwasConn) Text(data string) error   { return c.write(ws.NewTextFrame([]byte(data))) }
func (c *gobwasConn) Binary(data []byte) error { return c.write(ws.NewBinaryFrame(data)) }
func (c *gobwasConn) Ping(data string) error   { return c.write(ws.NewPingFrame([]byte(data))) }
func (c *gobwasConn) Abort() error             { return abort(c.conn) }

func (c *gobwasConn) Fragments(parts [][]byte) error {
	for i, part := range parts {
		op := ws.OpContinuation
		if i == 0 {
			op = ws.OpText
		}
		if err := c.write(ws.NewFrame(op, i == len(parts)-1, bytes.Clone(part))); err != nil {
			return err
		}
	}
	return nil
}

func (c *gobwasConn) Close(code int, reason string) error {
	var body []byte
	if code != 0 {
		body = ws.NewCloseFrameBody(ws.StatusCode(code), reason)
	}
	c.closed = true
	return c.write(ws.NewCloseFrame(body))
}

// frame reads one frame that is legal in state.
func (c *gobwasConn) frame(state ws.State) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(c.br); err != nil {
		return f, err
	}
	if err := ws.CheckHeader(f.Header, state); err != nil {
		return f, err
	}
	if f.Header.Length > 64<<20 {
		return f, errors.New("frame too large")
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(c.br, f.Payload)
	return f, err
}

// next returns the next message, pong or end; pings are answered.
func (c *gobwasConn) next() (play.Event, error) {
	var message []byte
	var kind string
	state := c.side
	for {
		f, err := c.frame(state)
		if err != nil {
			return play.Event{Kind: "close", Code: 1006}, err
		}
		f = ws.UnmaskFrameInPlace(f)
		switch f.Header.OpCode {
		case ws.OpPing:
			if err := c.write(ws.NewPongFrame(f.Payload)); err != nil {
				return play.Event{Kind: "close", Code: 1006}, err
			}
			continue
		case ws.OpPong:
			return play.Event{Kind: "pong", Data: f.Payload}, nil
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(f.Payload)
			if code.Empty() {
				code = ws.StatusNoStatusRcvd
			}
			if !c.closed {
				_ = c.write(ws.NewCloseFrame(bytes.Clone(f.Payload)))
			}
			return play.Event{Kind: "close", Code: int(code), Reason: reason}, io.EOF
		case ws.OpText:
			kind = "text"
		case ws.OpBinary:
			kind = "binary"
		case ws.OpContinuation:
		default:
			return play.Event{Kind: "close", Code: 1006}, errors.New("unknown opcode")
		}
		message = append(message, f.Payload...)
		if f.Header.Fin {
			return play.Event{Kind: kind, Data: message}, nil
		}
		state = state.Set(ws.StateFragmented)
	}
}

type gobwasSession struct {
	*gobwasConn
	subprotocol string
	answered    http.Header
	events      chan play.Event
}

func (s *gobwasSession) Subprotocol() string { return s.subprotocol }
func (s *gobwasSession) Header(name string) string {
	return strings.Join(s.answered.Values(name), ", ")
}
func (s *gobwasSession) Events() <-chan play.Event { return s.events }

func (s *gobwasSession) read() {
	defer s.conn.Close()
	for {
		e, err := s.next()
		s.events <- e
		if err != nil {
			return
		}
	}
}

func gobwasServer(reports *play.Reports) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if play.Refuse(w, r) {
			return
		}
		wanted := play.Choose(play.Offered(r.Header))
		up := ws.HTTPUpgrader{
			Header:   answer(),
			Protocol: func(p string) bool { return p == wanted },
		}
		conn, rw, _, err := up.Upgrade(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		c := &gobwasConn{conn: conn, br: rw.Reader, side: ws.StateServerSide}
		b, err := play.NewBackend(r, c, reports)
		var e play.Event
		for err == nil {
			if e, err = c.next(); err != nil {
				break
			}
			if e.Kind == "pong" {
				err = b.Pong(string(e.Data))
			} else {
				err = b.Message(e.Kind, e.Data)
			}
		}
		b.Closed(e.Code, e.Reason)
	})
}
