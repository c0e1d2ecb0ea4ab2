package proxy

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
	"github.com/stentproxy/stent/supervisor"
)

// State is where a session stands.
type State uint32

// The states, as the admin API and the metrics name them.
const (
	Connecting State = iota // its first upstream is dialled
	Open                    // frames flow
	HeldState               // the client is kept while an upstream is looked for
	Closing                 // its end is decided
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Open:
		return "open"
	case HeldState:
		return "held"
	case Closing:
		return "closing"
	}
	return "unknown"
}

// Session is one client, from its handshake to its end. It owns the
// client's connection, through its Link; the worker that suture supervises
// gives it one upstream after another.
type Session struct {
	// static
	key    string
	proxy  *Proxy
	route  *route
	info   *plug.Info
	opened time.Time
	link   *relay.Link

	// handshake, as it goes up with each dial
	shake *upstream.Handshake // nil when there is no further dial
	base  []byte              // header lines without what is negotiated
	offer http.Header

	// owned by the worker, one Serve at a time
	serving   bool // Serve has not returned: set at its start, a panic leaves it
	agreed    agreement
	answered  bool // the client has its 101
	upstream  *upstream.Conn
	intensity supervisor.Intensity
	planned   bool // the last loss was wanted
	waiting   *heldClock
	opening   *opening // until answered

	// handlers are called one at a time
	hmu      sync.Mutex
	handlers []Handler
	protocol protocol // nil where the session understands none

	state    atomic.Uint32
	attempt  atomic.Int32
	restarts atomic.Int32
	target   atomic.Pointer[upstream.Target]
	heldFor  atomic.Int64 // nanoseconds, without the current hold
	heldAt   atomic.Int64 // unix nanoseconds of the current hold's start; 0 is none
	moveTo   atomic.Pointer[upstream.Target]
	prepaid  atomic.Bool // the next redial has its place in redial_rate
	dialling atomic.Pointer[context.CancelFunc]

	subprotocol atomic.Pointer[string] // as the client was told; nil before

	prevOfID, nextOfID *Session // with the same socket id; guarded by the registry
}

// opening is what passes between the worker and the handler of the HTTP
// request until the client is answered.
type opening struct {
	steps chan func() // of the worker, for the handler to run

	// owned by the steps
	w      http.ResponseWriter
	r      *http.Request
	header http.Header // of the first upstream's answer
	over   bool        // the client is answered, or is to be, with err
	err    error
}

// Key returns the session's key, which stays the same for its life. The
// upstream knows it as Stent-Session.
func (s *Session) Key() string { return s.key }

// ID returns the socket id that an auth plug gave, or "".
func (s *Session) ID() string { return s.info.ID }

// Route returns the pattern of the session's route.
func (s *Session) Route() string { return s.route.endpoint.Pattern }

// Remote returns the client's address.
func (s *Session) Remote() string { return s.info.ClientIP.String() }

// Claims returns what an auth plug learned of the client. It must not be
// changed.
func (s *Session) Claims() map[string]any { return s.info.Claims }

// Attempt returns the number of the session's current or last upstream, as
// that one knows it by Stent-Attempt.
func (s *Session) Attempt() int { return int(s.attempt.Load()) }

// State returns where the session stands.
func (s *Session) State() State { return State(s.state.Load()) }

// Opened returns when the client asked for the session.
func (s *Session) Opened() time.Time { return s.opened }

// Subprotocol returns the subprotocol that the client was told, or "".
func (s *Session) Subprotocol() string {
	if p := s.subprotocol.Load(); p != nil {
		return *p
	}
	return ""
}

// Target returns the name of the upstream target that the session is or was
// last on, or "".
func (s *Session) Target() string {
	if t := s.target.Load(); t != nil {
		return t.Name()
	}
	return ""
}

// Header returns the header of the client's handshake as it goes up. It is
// parsed anew at each call; a handler that needs it keeps it.
func (s *Session) Header() http.Header {
	lines := append(bytes.Clone(s.base), '\r', '\n')
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(lines))).ReadMIMEHeader()
	if err != nil {
		return http.Header{}
	}
	return http.Header(h)
}

// Pushed is what became of a pushed message.
type Pushed = relay.Pushed

// What becomes of a pushed message.
const (
	Written = relay.Written // it is on its way
	Held    = relay.Held    // it waits for an upstream
	Gone    = relay.Gone    // the session, or that side of it, has ended
	Full    = relay.Full    // that side does not take what waits already
)

// Push sends a message to one side, between two messages that flow there. What
// is pushed to a client before its 101 follows that.
// It may be called at any time, from any goroutine.
func (s *Session) Push(to Side, t Type, data []byte) Pushed {
	return s.link.Push(to, t, data)
}

// Close ends the session: the client gets a close frame with code and reason,
// the upstream 1001. A code of 0, or one that is never sent, means 1008.
func (s *Session) Close(code int, reason string) {
	if !relay.Sends(code) {
		code = 0
	}
	s.end(End{Cause: relay.Kicked, Code: code, Reason: reason})
}

// end decides the session's end, unless it is decided.
func (s *Session) end(e End) {
	s.link.End(e)
	if cancel := s.dialling.Load(); cancel != nil {
		(*cancel)()
	}
	s.setState(Closing)
}

func (s *Session) setState(to State) {
	for {
		from := State(s.state.Load())
		if from == to || from == Closing {
			return
		}
		if s.state.CompareAndSwap(uint32(from), uint32(to)) {
			s.route.count.moved(from, to)
			return
		}
	}
}

// inspect lets the handlers see the message in their order, each what the one
// before it passed on; hmu is held.
func (s *Session) inspect(from Side, t Type, data []byte) Result {
	m := Message{From: from, Type: t, Data: data}
	var passed Result
	if from == Upstream && s.protocol != nil {
		switch res := s.protocol.fromUpstream(m); res.Verdict {
		case relay.OK:
		case relay.Forward:
			m.Type, m.Data = res.Type, res.Data
			passed = res
		case relay.Drop, relay.Reply, relay.Stop:
			return res
		}
	}
	for i, h := range s.handlers {
		start := time.Now()
		res := h.Message(s, m)
		s.route.handlers[i].count.observe(res.Verdict, time.Since(start))
		switch res.Verdict {
		case relay.OK:
		case relay.Forward:
			m.Type, m.Data = res.Type, res.Data
			passed = res
		case relay.Drop, relay.Reply, relay.Stop:
			return res
		}
	}
	if from == Client && s.protocol != nil {
		if res := s.protocol.fromClient(m); res.Verdict != relay.OK {
			return res
		}
	}
	return passed
}

// inline reports whether no handler of the session blocks.
func (s *Session) inline() bool {
	for _, h := range s.handlers {
		if i, ok := h.(Inliner); !ok || !i.Inline() {
			return false
		}
	}
	return true
}

// inspector lets a Link call a session's handlers.
type inspector Session

// Inspect implements relay.Inspector.
func (i *inspector) Inspect(from Side, t Type, data []byte) Result {
	s := (*Session)(i)
	s.hmu.Lock()
	defer s.hmu.Unlock()
	return s.inspect(from, t, data)
}

// TryInspect implements relay.TryInspector: another callback of the session
// may be running, and block, where this one does not.
func (i *inspector) TryInspect(from Side, t Type, data []byte) (Result, bool) {
	s := (*Session)(i)
	if !s.hmu.TryLock() {
		return Result{}, false
	}
	defer s.hmu.Unlock()
	return s.inspect(from, t, data), true
}

// start lets the client's frames flow. A handler hears of the first upstream
// before it sees a message, and can push to both sides by then.
func (s *Session) start(c clientEnd) {
	s.hmu.Lock()
	defer s.hmu.Unlock()
	s.link.Start(c.conn, c.early)
	if s.link.Attached() {
		eachLocked(s, func(h UpstreamWatcher) { h.UpstreamUp(s, s.Attempt()) })
	}
}

// each calls f for every handler that implements T, one at a time, and
// keeps a panic from going further: it ends the session.
func each[T any](s *Session, f func(T)) {
	s.hmu.Lock()
	defer s.hmu.Unlock()
	eachLocked(s, f)
}

func eachLocked[T any](s *Session, f func(T)) {
	defer func() {
		if v := recover(); v != nil {
			s.handlerPanicked(v)
		}
	}()
	for _, h := range s.handlers {
		if t, ok := h.(T); ok {
			f(t)
		}
	}
}

// upstreamLost tells those who look at messages, and the client what its
// protocol has to say of it.
func (s *Session) upstreamLost(loss error) {
	s.protocolLost()
	each(s, func(h UpstreamWatcher) { h.UpstreamDown(s, loss) })
}

func (s *Session) protocolLost() {
	if s.protocol == nil {
		return
	}
	s.hmu.Lock()
	defer s.hmu.Unlock()
	s.protocol.lost()
}

// heldClock measures one hold.
type heldClock struct {
	since time.Time
	until time.Time
}

func (s *Session) holdBegins(now time.Time, hold time.Duration) {
	if s.waiting != nil {
		return
	}
	s.waiting = &heldClock{since: now, until: now.Add(hold)}
	s.heldAt.Store(now.UnixNano())
	s.setState(HeldState)
}

func (s *Session) holdEnds(now time.Time) {
	if s.waiting == nil {
		return
	}
	d := now.Sub(s.waiting.since)
	s.heldFor.Add(int64(d))
	s.heldAt.Store(0)
	s.waiting = nil
	s.proxy.metrics.heldSeconds.Observe(d.Seconds())
}

// HeldFor returns how long the session has been without an upstream, all
// holds together.
func (s *Session) HeldFor() time.Duration {
	d := time.Duration(s.heldFor.Load())
	if at := s.heldAt.Load(); at != 0 {
		d += time.Since(time.Unix(0, at))
	}
	return d
}
