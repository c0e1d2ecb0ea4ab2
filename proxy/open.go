package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/longpoll"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
	"github.com/stentproxy/stent/supervisor"
)

// clientEnd is the client's connection after its 101, or why there is none.
type clientEnd struct {
	conn  net.Conn
	early []byte
	err   error
}

// open makes a session of a WebSocket handshake that has passed the plugs.
// It returns when the client is answered; the session then lives in the
// supervision tree, and is returned where w had its 101.
func (p *Proxy) open(rt *route, w http.ResponseWriter, r *http.Request) *Session {
	info := plug.From(r)
	if problem := p.admission.enter(info); problem != nil {
		problem.ServeHTTP(w, r)
		return nil
	}
	s := p.newSession(rt, w, r, info)
	if err := s.openHandlers(); err != nil {
		p.refuseWith(w, r, err)
		return nil
	}
	info.Take()
	o := s.opening // the worker forgets it
	p.registry.add(s)
	if p.ended.Load() {
		s.end(End{Cause: relay.Draining})
	}
	if p.revoked(s) { // since its token was verified
		s.revoke()
		s.over(*s.link.Ended())
		plug.Revoked().ServeHTTP(w, r)
		return nil
	}
	if err := p.tree.AddSession((*worker)(s)); err != nil {
		s.end(End{Cause: relay.Draining, Err: err})
		s.over(*s.link.Ended())
		unavailable("the proxy is ending").ServeHTTP(w, r)
		return nil
	}
	defer context.AfterFunc(r.Context(), func() {
		s.end(End{Cause: relay.ClientGone, Err: context.Cause(r.Context())})
	})()
	for !o.over {
		(<-o.steps)()
	}
	if o.err != nil {
		if _, ok := errors.AsType[*upstream.Refused](o.err); !ok { // whose body is to be closed
			o.err = endProblem(s.link.Ended().Cause, o.err)
		}
		p.refuseWith(w, r, o.err)
		return nil
	}
	return s
}

// crashIntensity bounds the restarts of a worker that panics, where no
// continuity does.
var crashIntensity = supervisor.Intensity{Max: 10, Window: time.Minute}

// newSession makes the session of a handshake.
func (p *Proxy) newSession(rt *route, w http.ResponseWriter, r *http.Request, info *plug.Info) *Session {
	s := &Session{
		key: rand.Text(), proxy: p, route: rt, info: info, opened: time.Now(),
		opening: &opening{steps: make(chan func()), w: w, r: r},
		offer:   http.Header{},
	}
	up := UpHeader(r, info)
	for _, name := range []string{"Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
		if v := up[name]; len(v) > 0 {
			s.offer[name] = v
		}
		delete(up, name)
	}
	up.Set("Stent-Session", s.key)
	host := r.Host
	if rt.hostTarget {
		host = ""
	}
	s.base = bytes.Clone(appendHeader(make([]byte, 0, 1<<10), up)) // no longer than it is
	s.shake = &upstream.Handshake{RequestURI: rt.endpoint.UpURI(r), Host: host, ID: info.ID, IP: info.ClientIP.String()}
	s.intensity = crashIntensity
	if c := rt.continuity; c != nil {
		s.intensity = supervisor.Intensity{Max: c.MaxRestarts, Window: time.Duration(c.MaxSeconds * float64(time.Second))}
	}
	for _, h := range rt.handlers {
		s.handlers = append(s.handlers, h.make())
	}
	_, polled := w.(*longpoll.Client) // its pings stand for heartbeats
	state := relay.Session{
		Policy: rt.policy, Alone: rt.alone, PassPings: polled, Expires: info.Expires,
		Inspector: (*inspector)(s), Inline: s.inline(), Loops: p.loops,
		Sizes: rt.count.sizes(), Shared: p.shares.join(info),
	}
	if s.protocol = newProtocol(s, r.URL.RawQuery); s.protocol != nil && rt.continuity != nil {
		state.Replayer = s.protocol
	}
	s.link = relay.New(state)
	rt.count.opening()
	return s
}

// openHandlers tells the handlers of the session; one may refuse it. Those
// that were told before are then told of its end.
func (s *Session) openHandlers() error {
	for i := range s.handlers {
		if err := s.openHandler(s.handlers[i]); err != nil {
			s.handlers = s.handlers[:i]
			s.end(End{Cause: relay.HandlerStopped, Err: err})
			s.over(*s.link.Ended())
			return err
		}
	}
	if end := s.link.Ended(); end != nil {
		s.over(*end)
		return internalError()
	}
	return nil
}

func (s *Session) openHandler(h Handler) (err error) {
	o, ok := h.(Opener)
	if !ok {
		return nil
	}
	s.hmu.Lock()
	defer s.hmu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			s.handlerPanicked(v)
			err = internalError()
		}
	}()
	err = o.Open(s)
	if _, ok := errors.AsType[*Refusal](err); err != nil && !ok {
		s.Log().Error("handler failed to open a session", zap.Error(err))
		return internalError()
	}
	return err
}

// takeOver answers 101 and takes the client's connection out of net/http,
// with the bytes that the client sent ahead.
func (s *Session) takeOver(w http.ResponseWriter, r *http.Request, header http.Header) clientEnd {
	response := s.switching(w, r, header)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return clientEnd{err: fmt.Errorf("take the client's connection over: %w", err)}
	}
	if p, ok := conn.(*proxied); ok {
		conn = p.Conn // its header is read, and nothing beyond it
	}
	conn.SetDeadline(time.Time{})
	var early []byte
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n)
		early = slices.Clone(b)
	}
	conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	if _, err := conn.Write(response); err != nil {
		conn.Close()
		return clientEnd{err: fmt.Errorf("answer the client: %w", err)}
	}
	conn.SetWriteDeadline(time.Time{})
	return clientEnd{conn: conn, early: early}
}

// answerTimeout bounds the writing of a 101.
const answerTimeout = 10 * time.Second

// acceptGUID is what the client's key is hashed with (RFC 6455 section 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// switching is the 101 for the client: the upstream's header, with what
// concerns the client's own leg (RFC 6455 section 4.2.2).
func (s *Session) switching(w http.ResponseWriter, r *http.Request, header http.Header) []byte {
	down := DownHeader(header, s.info)
	for name, values := range w.Header() {
		down[name] = values
	}
	for _, name := range []string{"Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol", "Content-Length"} {
		delete(down, name)
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + acceptGUID))
	b := append(make([]byte, 0, 512), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	b = append(b, "\r\n"...)
	if told := s.told(); told != "" {
		b = appendLines(b, "Sec-WebSocket-Protocol", []string{told})
	}
	if s.agreed.Extensions != "" {
		b = appendLines(b, "Sec-WebSocket-Extensions", []string{s.agreed.Extensions})
	}
	b = appendHeader(b, down)
	return append(b, "\r\n"...)
}

// told is the subprotocol that the client is told: what was agreed on, or else
// the offer that stood for its token.
func (s *Session) told() string {
	if s.agreed.Subprotocol != "" {
		return s.agreed.Subprotocol
	}
	return s.info.Subprotocol
}

// appendHeader appends header lines, sorted by name.
func appendHeader(b []byte, h http.Header) []byte {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendLines(b, name, h[name])
	}
	return b
}

// appendLines appends one header line for each value. A line break in a
// value, which net/http would not have let in, becomes a blank.
func appendLines(b []byte, name string, values []string) []byte {
	for _, v := range values {
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, lineBreaks.Replace(v)...)
		b = append(b, "\r\n"...)
	}
	return b
}

var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// refuseWith answers a handshake that an error has ended: with the
// upstream's own refusal, a handler's, or a problem.
func (p *Proxy) refuseWith(w http.ResponseWriter, r *http.Request, err error) {
	if refused, ok := errors.AsType[*upstream.Refused](err); ok {
		defer refused.Response.Body.Close()
		p.passOn(w, r, refused.Response)
		return
	}
	info := plug.From(r)
	if own, ok := errors.AsType[*Refusal](err); ok {
		for name, values := range own.Header {
			w.Header()[name] = values
		}
		info.ApplyResponse(w.Header())
		http.Error(w, own.Body, own.Status)
		return
	}
	if r.Context().Err() != nil {
		return // nobody is there to be answered
	}
	problem := dialProblem(err)
	p.log.Warn("session not opened",
		zap.String("request_id", info.RequestID), zap.String("route", info.Route),
		zap.Int("status", problem.Status), zap.Error(err))
	problem.ServeHTTP(w, r)
}

// passOn streams an upstream's refusal to the client as it is.
func (p *Proxy) passOn(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	for name, values := range DownHeader(resp.Header, plug.From(r)) {
		w.Header()[name] = values
	}
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
	}
	w.WriteHeader(resp.StatusCode)
	out := http.NewResponseController(w)
	buf := make([]byte, 4<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			out.Flush()
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // a cut body must not look whole
		}
	}
}
