package proxy

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// Log returns the logger of what happens to this session.
func (s *Session) Log() *zap.Logger {
	return s.proxy.log.With(zap.String("session", s.key), zap.String("route", s.Route()))
}

// opened101 notes that the client has its 101.
func (s *Session) opened101() {
	s.route.count.opened()
	if s.route.quiet {
		return
	}
	if e := s.proxy.log.Check(s.route.logLevel, "session opened"); e != nil {
		e.Write(zap.String("session", s.key), zap.String("route", s.Route()),
			zap.String("upstream", s.route.upstream), zap.String("target", s.Target()),
			zap.String("mode", s.route.mode), zap.String("remote", s.Remote()),
			zap.String("id", s.ID()), zap.String("request_id", s.info.RequestID),
			zap.String("subprotocol", protocolName(s.told())))
	}
}

// longestProtocol is longer than any registered subprotocol, and shorter than
// any JSON Web Token.
const longestProtocol = 64

// protocolName is a subprotocol as it may be logged. Browsers have no other
// field for a token, and some backends agree to the token itself.
func protocolName(subprotocol string) string {
	if len(subprotocol) > longestProtocol {
		return "(too long for a name)"
	}
	return subprotocol
}

// over is the last that is done for a session.
func (s *Session) over(end End) {
	s.setState(Closing)
	each(s, func(h Closer) { h.Close(s, end) })
	if s.answered {
		s.logEnd(end)
	}
	s.unregistered(end)
}

// unregistered takes the session out of all books, the registry last: who
// waits for that to be empty finds the others closed.
func (s *Session) unregistered(end End) {
	if s.answered {
		s.route.count.closed(end, closeTable[end.Cause].Initiator, time.Since(s.opened))
	}
	s.setState(Closing)
	s.route.count.gone()
	s.info.End()
	s.proxy.registry.remove(s)
}

func (s *Session) logEnd(end End) {
	if s.route.quiet {
		return
	}
	e := s.proxy.log.Check(s.route.logLevel, "session closed")
	if end.Cause == relay.HandlerFailed || end.Cause == relay.Failed {
		e = s.proxy.log.Check(zap.ErrorLevel, "session closed")
	}
	if e == nil {
		return
	}
	client, up := &s.link.Counters[Client], &s.link.Counters[Upstream]
	code := end.Code
	if code == frame.NoCode {
		code = 0
	}
	fields := []zap.Field{
		zap.String("session", s.key), zap.String("route", s.Route()),
		zap.String("upstream", s.route.upstream), zap.String("target", s.Target()),
		zap.String("initiator", closeTable[end.Cause].Initiator), zap.Stringer("cause", end.Cause),
		zap.Int("code", code), zap.String("reason", end.Reason),
		zap.Duration("duration", time.Since(s.opened)), zap.Int("restarts", int(s.restarts.Load())),
		zap.Uint64("client_messages", client.Messages()), zap.Uint64("client_bytes", client.Bytes.Load()),
		zap.Uint64("upstream_messages", up.Messages()), zap.Uint64("upstream_bytes", up.Bytes.Load()),
	}
	if end.Err != nil && !errors.Is(end.Err, upstream.ErrNoTarget) || end.Cause == relay.GaveUp {
		fields = append(fields, zap.Error(end.Err))
	}
	e.Write(fields...)
}

// handlerPanicked ends a session whose handler panicked outside of Message.
func (s *Session) handlerPanicked(v any) {
	s.proxy.log.Error("handler panicked", zap.String("session", s.key), zap.String("route", s.Route()), zap.Any("panic", v), zap.Stack("stack"))
	s.end(End{Cause: relay.HandlerFailed})
}
