package golang

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lxzan/gws"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

var gwsClient = play.Client{
	Lacks: []string{play.Fragments, play.NoCode, play.Refusal},
	Open: func(_ context.Context, url string, c play.Case) (play.Session, error) {
		s := &gwsSession{events: make(chan play.Event, inbox)}
		h := header(c.Headers)
		if len(c.Protocols) > 0 {
			h.Set("Sec-WebSocket-Protocol", strings.Join(c.Protocols, ", "))
		}
		conn, resp, err := gws.NewClient(s, &gws.ClientOption{
			Addr:               url,
			RequestHeader:      h,
			ReadMaxPayloadSize: 64 << 20,
			PermessageDeflate:  gws.PermessageDeflate{Enabled: c.Deflate, Threshold: 1},
			Logger:             gwsQuiet{},
		})
		if err != nil {
			return nil, err
		}
		s.conn, s.resp = conn, resp
		go conn.ReadLoop()
		return s, nil
	},
}

type gwsQuiet struct{}

func (gwsQuiet) Error(...any) {}

type gwsConn struct {
	conn *gws.Conn
	sent atomic.Int32 // the code of a close of its own
}

func (c *gwsConn) Text(data string) error   { return c.conn.WriteString(data) }
func (c *gwsConn) Binary(data []byte) error { return c.conn.WriteMessage(gws.OpcodeBinary, data) }
func (c *gwsConn) Fragments([][]byte) error { return errors.ErrUnsupported }
func (c *gwsConn) Ping(data string) error   { return c.conn.WritePing([]byte(data)) }
func (c *gwsConn) Abort() error             { return abort(c.conn.NetConn()) }

func (c *gwsConn) Close(code int, reason string) error {
	c.sent.Store(int32(code))
	return c.conn.WriteClose(uint16(code), []byte(reason))
}

// ended returns the peer's close, or after one's own the code that was sent:
// the library tells nothing of the answer.
func (c *gwsConn) ended(err error) (int, string) {
	end, ok := errors.AsType[*gws.CloseError](err)
	switch {
	case c.sent.Load() != 0:
		return int(c.sent.Load()), ""
	case !ok:
		return 1006, ""
	case end.Code == 0:
		return 1005, ""
	}
	return int(end.Code), string(end.Reason)
}

type gwsSession struct {
	gws.BuiltinEventHandler
	gwsConn
	resp   *http.Response
	events chan play.Event
}

func (s *gwsSession) Subprotocol() string       { return s.conn.SubProtocol() }
func (s *gwsSession) Header(name string) string { return s.resp.Header.Get(name) }
func (s *gwsSession) Events() <-chan play.Event { return s.events }

func (s *gwsSession) OnPing(conn *gws.Conn, data []byte) { _ = conn.WritePong(data) }

func (s *gwsSession) OnPong(_ *gws.Conn, data []byte) {
	s.events <- play.Event{Kind: "pong", Data: slices.Clone(data)}
}

func (s *gwsSession) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	s.events <- play.Event{Kind: gwsKind(m), Data: slices.Clone(m.Bytes())}
}

func (s *gwsSession) OnClose(_ *gws.Conn, err error) {
	code, reason := s.ended(err)
	s.events <- play.Event{Kind: "close", Code: code, Reason: reason}
}

func gwsKind(m *gws.Message) string {
	if m.Opcode == gws.OpcodeBinary {
		return "binary"
	}
	return "text"
}

// gwsBackends finds a connection's backend by the session storage.
type gwsBackends struct {
	gws.BuiltinEventHandler
}

type gwsBackend struct {
	*play.Backend
	conn *gwsConn
}

func gwsBackendOf(conn *gws.Conn) gwsBackend {
	b, _ := conn.Session().Load("backend")
	return b.(gwsBackend)
}

func (gwsBackends) OnPing(conn *gws.Conn, data []byte) { _ = conn.WritePong(data) }
func (gwsBackends) OnPong(conn *gws.Conn, data []byte) { _ = gwsBackendOf(conn).Pong(string(data)) }

func (gwsBackends) OnClose(conn *gws.Conn, err error) {
	b := gwsBackendOf(conn)
	b.Closed(b.conn.ended(err))
}

func (gwsBackends) OnMessage(conn *gws.Conn, m *gws.Message) {
	defer m.Close()
	_ = gwsBackendOf(conn).Message(gwsKind(m), slices.Clone(m.Bytes()))
}

func gwsServer(reports *play.Reports) http.Handler {
	up := gws.NewUpgrader(gwsBackends{}, &gws.ServerOption{
		SubProtocols:       play.Protocols,
		ReadMaxPayloadSize: 64 << 20,
		ResponseHeader:     answer(),
		Logger:             gwsQuiet{},
		PermessageDeflate:  gws.PermessageDeflate{Enabled: true, Threshold: 1},
	})
	plain := gws.NewUpgrader(gwsBackends{}, &gws.ServerOption{
		ReadMaxPayloadSize: 64 << 20,
		ResponseHeader:     answer(),
		Logger:             gwsQuiet{},
		PermessageDeflate:  gws.PermessageDeflate{Enabled: true, Threshold: 1},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if play.Refuse(w, r) {
			return
		}
		// With subprotocols of its own the library refuses a client without.
		u := up
		if play.Choose(play.Offered(r.Header)) == "" {
			u = plain
		}
		conn, err := u.Upgrade(w, r)
		if err != nil {
			return
		}
		c := &gwsConn{conn: conn}
		b, err := play.NewBackend(r, c, reports)
		if err != nil {
			return
		}
		conn.Session().Store("backend", gwsBackend{b, c})
		conn.ReadLoop()
	})
}
