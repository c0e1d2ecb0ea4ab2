// Package relay moves frames between a client and its upstreams. A Link
// owns the client's connection for the life of the session and is given one
// upstream connection after another; it knows every frame's boundary, so it
// can count, limit, answer and close, and change the upstream between two
// messages.
//
// Two goroutines drive a Link: the client's reader, which the Link starts
// and joins, and the caller of Run, which reads the upstream. Each writes
// what it reads to the other side before it reads again: the sockets are the
// only queue.
package relay

import (
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// Inspector looks at whole messages in message mode. Calls come from two
// goroutines, one for each direction.
type Inspector interface {
	// Inspect says what happens to a message. Data is valid until it
	// returns; a panic ends the session.
	Inspect(from Side, t frame.Opcode, data []byte) Result
}

// TryInspector is an Inspector whose Inspect may have to wait for another
// call to return.
type TryInspector interface {
	Inspector
	// TryInspect is Inspect, but where that would wait: there it returns
	// false at once, and has looked at nothing.
	TryInspect(from Side, t frame.Opcode, data []byte) (Result, bool)
}

// Replayer repeats what a new upstream has to know, for a protocol that
// the session understands. It is asked for every upstream, the first too,
// which has nothing to know unless the client was let in before it.
type Replayer interface {
	// HandedOver is told of each client message that an upstream's socket
	// has taken.
	HandedOver(t frame.Opcode, data []byte)
	// Greet returns what an upstream gets first. Nothing else goes
	// there until Ready.
	Greet() []Recorded
	// Ready reports whether the greeting was answered. It is asked again
	// after each message of the upstream.
	Ready() bool
	// Replay returns what follows the greeting, before what was held.
	Replay() []Recorded
}

// Recorded is a message that is repeated.
type Recorded struct {
	Type frame.Opcode
	Data []byte
}

// Session is what a Link needs to know of its session.
type Session struct {
	Policy    *Policy
	Inspector Inspector // in message mode
	Replayer  Replayer  // or nil
	// Deflate says that permessage-deflate is terminated on the client's
	// leg; see Agree.
	Deflate bool
	// Alone says that there is no upstream: the Inspector is the application.
	Alone bool
	// Inline says that the Inspector never blocks, so that a loop may call it.
	Inline bool
	// PassPings says that the client's pings go on to the upstream in message
	// mode, too. Its pongs then end here.
	PassPings bool
	// Loops drive the session where its connections allow it; nil leaves it
	// to the pump.
	Loops *Loops
	// Shared are rates of the client that the session keeps together with
	// others.
	Shared []*Shared
	Sizes  [2]*Sizes // by Side; may be nil
	// Expires ends the session with Expired; zero is never.
	Expires time.Time
}

// Link joins one client with one upstream at a time.
type Link struct {
	// static
	Session
	opened instant
	expiry instant       // of Session.Expires; 0 is never
	done   chan struct{} // closed when the session's end is decided
	ending chan struct{} // closed when its close frames are written, by the pump

	// Counters counts what each Side sent.
	Counters [2]Counters
	last     atomic.Int64    // instant of the last message
	held     atomic.Int64    // bytes held, for the admin API
	gathered [2]atomic.Int64 // bytes of messages that are not whole, by Side; see Weight

	client     *leg
	clientDone chan struct{}
	strays     sync.WaitGroup // what outlives an upstream: legs on their way out, jobs

	// owned by the client's reader
	up      flow
	hold    gathered      // messages that no upstream has taken yet
	holdEnd mark          // its boundaries
	fed     *leg          // the upstream that has what the ones before it had
	greeted *leg          // the upstream whose greeting is not answered yet
	begun   *leg          // the upstream that has a part of the current client message
	replay  *recorder     // of the first messages; nil: none is repeated
	scratch *[2]scratch   // by Side, where messages are looked at; [Upstream] is owned by Run
	wait    time.Duration // of a pause that a rate asks for

	// owned by Run, on a loop by that
	down flow

	// Side by side, since sessions are many.
	busy   bool // data is in hand; owned by Run
	closed bool // the client's close frame was read; owned by its reader
	torn   bool // an upstream was lost inside a client message; guarded by mu

	seat *seat // the Link's place on a loop; nil: the pump's

	mu sync.Mutex
	// guarded by mu
	upstream *leg
	runs     *leg      // the upstream that Run watches, on a loop
	farewell *farewell // the client has nothing more to say
	ahead    []byte    // pushes that wait for the client
	leaving  *strayed  // nil: there were none
	parked   []byte    // pushes that wait for an upstream
	end      *End
	closeBy  instant
}

// strayed are the legs of former upstreams on their way out, on the pump.
type strayed struct{ legs []*leg }

// scratch is the memory for one side's message while it is looked at.
type scratch struct{ plain, inflated, replay gathered }

// forget gives back what a side's last message took.
func (l *Link) forget(from Side) {
	if l.scratch != nil {
		l.scratch[from].reset()
	}
}

func (s *scratch) reset() {
	s.plain.reset()
	s.inflated.reset()
	s.replay.reset()
}

// farewell is the time between the client's last word and the upstream's.
type farewell struct {
	cause   Cause
	payload []byte // of the client's close frame
	end     End
	until   instant
}

// New returns a Link without connections.
func New(s Session) *Link {
	t := now()
	l := &Link{Session: s, opened: t, done: make(chan struct{})}
	if s.Policy.Assemble || s.Replayer != nil {
		l.scratch = new([2]scratch)
	}
	l.last.Store(int64(t))
	if !s.Expires.IsZero() {
		// Held against overflow. The time that is left is taken first, so
		// that whatever comes between makes it late and not early.
		left := min(time.Until(s.Expires), maxExpiry)
		l.expiry = max(1, now().add(left))
	}
	p := s.Policy
	l.up = flow{assemble: p.Assemble, limit: newLimiter(p.Rate, s.Shared, t), count: &l.Counters[Client], sizes: s.Sizes[Client], last: &l.last, weight: &l.gathered[Client]}
	l.up.scan = frame.Scanner{Masked: true, Limit: p.MessageSize}
	l.down = flow{assemble: p.Assemble, count: &l.Counters[Upstream], sizes: s.Sizes[Upstream], last: &l.last, weight: &l.gathered[Upstream]}
	l.down.scan = frame.Scanner{Limit: p.MessageSize}
	if c := p.Continuity; c != nil {
		l.up.whole, l.down.whole = c.Whole, c.Whole
		if c.ReplayFirst > 0 {
			l.replay = &recorder{left: c.ReplayFirst, room: c.ReplayBytes}
		}
	}
	return l
}

// Agree tells what the session's ends have agreed on: the reserved bits of
// extensions between them, and whether permessage-deflate is terminated on
// the client's leg. It is called before Start.
func (l *Link) Agree(rsv uint8, deflate bool) {
	l.Deflate = deflate
	l.up.scan.Rsv, l.down.scan.Rsv = rsv, l.down.scan.Rsv|rsv
	if deflate {
		l.up.scan.Rsv = frame.Rsv1
	}
}

// Start gives the Link its client's connection, with the bytes that were
// read from it already, and starts reading. Finish joins the reader.
func (l *Link) Start(conn net.Conn, early []byte) {
	l.clientDone = make(chan struct{})
	if l.Loops.take(l, conn, early) {
		return
	}
	l.ending = make(chan struct{})
	client := newLeg(conn, early, Client, l.Policy)
	client.deflate = l.Deflate
	l.mu.Lock() // End and Push come from anywhere, at any time
	l.client = client
	if l.end != nil {
		client.hurry(l.closeBy)
	}
	if len(l.ahead) > 0 {
		client.messages, l.ahead = l.ahead, nil
		client.pending.Store(true)
	}
	l.mu.Unlock()
	client.flush()
	go l.serveClient()
}

// Attach gives the Link an upstream's connection. Where permessage-deflate
// is terminated on it, inflate says that its messages may be compressed, and
// deflate that ours may. An error leaves conn to the caller: the session has
// ended meanwhile, or it goes on without that upstream, for want of a
// descriptor.
func (l *Link) Attach(conn net.Conn, early []byte, inflate, deflate bool) error {
	if l.seat != nil {
		return l.seat.attach(conn, early, inflate, deflate)
	}
	up := newLeg(conn, early, Upstream, l.Policy)
	up.deflate = deflate
	l.mu.Lock()
	if l.end != nil {
		l.mu.Unlock()
		return errOver
	}
	l.upstream = up
	l.mu.Unlock()
	l.begin(inflate)
	if l.client != nil {
		l.client.wake() // it may hold something, or be about to
	}
	return nil
}

// begin readies the upstream's flow for a new stream.
func (l *Link) begin(inflate bool) {
	l.down.reset()
	if l.Policy.Assemble {
		l.down.scan.Rsv = 0
		if inflate {
			l.down.scan.Rsv = frame.Rsv1
		}
	}
}

// Engine names what drives the frames: "pump" or "loop". It is known from
// Start on.
func (l *Link) Engine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seat != nil {
		return "loop"
	}
	return "pump"
}

// Done is closed when the session's end is decided; Finish then carries it
// out.
func (l *Link) Done() <-chan struct{} { return l.done }

// Ended returns the session's end, or nil while it lives.
func (l *Link) Ended() *End {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// Attached reports whether an upstream is attached.
func (l *Link) Attached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upstream != nil
}

// Held is how many bytes of the client wait for an upstream.
func (l *Link) Held() int64 { return l.held.Load() }

// End decides the session's end, unless it is decided already. A code of 0
// stands for the cause's own, as does an empty reason.
func (l *Link) End(e End) {
	rule := &l.Policy.Rules[e.Cause]
	if e.Code == 0 {
		e.Code = rule.Client
	}
	if e.Reason == "" && e.Code == rule.Client {
		e.Reason = rule.Reason
	}
	e.Reason = frame.CutReason(strings.ToValidUTF8(e.Reason, "\uFFFD"))
	l.mu.Lock()
	if l.end != nil {
		l.mu.Unlock()
		return
	}
	l.end = &e
	l.closeBy = now().add(l.Policy.Timeouts.Close)
	closeBy, client, up := l.closeBy, l.client, l.upstream
	close(l.done)
	l.mu.Unlock()
	for _, leg := range []*leg{client, up} {
		if leg != nil {
			leg.hurry(closeBy)
			leg.wake()
		}
	}
}

// Move leaves the current upstream at a message boundary, politely: Run
// relays what it still says and returns a Loss with LossMoved. It returns
// false where there is nothing to leave.
func (l *Link) Move() bool {
	l.mu.Lock()
	up := l.upstream
	if up == nil || l.farewell != nil || l.end != nil || up.moving {
		l.mu.Unlock()
		return false
	}
	up.moving = true
	l.mu.Unlock()
	if up.sock != nil { // only its loop writes
		up.queueClose(goingAway, true)
	} else {
		up.closeWith(goingAway, true)
	}
	up.wake()
	return true
}

// codeGoingAway is the close code of an endpoint that leaves (RFC 6455
// section 7.4.1).
const codeGoingAway = 1001

var goingAway = frame.AppendClose(nil, codeGoingAway, "")

// Pushed is what became of a pushed message.
type Pushed uint8

// The values of Pushed.
const (
	Written Pushed = iota // it is on its way
	Held                  // it waits for its side to be there
	Gone                  // the session, or that side of it, has ended
	Full                  // that side does not take what waits already
)

// Push sends a message of our own to one side.
func (l *Link) Push(to Side, t frame.Opcode, data []byte) Pushed {
	l.mu.Lock()
	if l.end != nil || l.Alone && to == Upstream {
		l.mu.Unlock()
		return Gone
	}
	leg := l.client
	if to == Client && leg == nil {
		defer l.mu.Unlock()
		return wait(&l.ahead, encode(nil, t, data, false, false))
	}
	if to == Upstream {
		leg = l.upstream
		if l.Policy.Continuity != nil && l.farewell == nil && (leg == nil || !leg.fed || leg.moving || leg.failed) {
			defer l.mu.Unlock()
			return wait(&l.parked, encode(nil, t, data, true, false))
		}
	}
	l.mu.Unlock()
	if leg == nil {
		return Gone
	}
	switch leg.push(encode(nil, t, data, to == Upstream, leg.deflate)) {
	case nil:
		return Written
	case errPushFull:
		return Full
	default:
		return Gone
	}
}

// wait keeps a push for a side that is not there yet.
func wait(queue *[]byte, frames []byte) Pushed {
	if len(*queue)+len(frames) > maxPushes {
		return Full
	}
	*queue = append(*queue, frames...)
	return Held
}

// unpark lets pushes go to an upstream that is up to date, those first that
// waited for it.
func (l *Link) unpark(up *leg) {
	l.mu.Lock()
	parked := l.parked
	l.parked = nil
	up.fed = true
	l.mu.Unlock()
	if len(parked) > 0 {
		_ = up.push(parked) // where it is lost again, so are they
	}
}

// recovered ends the session when its goroutine panics, so that nothing
// reaches the process.
func (l *Link) recovered(onPanic func(v any, stack []byte)) {
	if v := recover(); v != nil {
		onPanic(v, debug.Stack())
	}
}

// Finish carries the end out: both sides get the close frames of the table,
// the client's reader is joined, all connections are closed. It returns
// within timeouts.close.
func (l *Link) Finish() End {
	if l.seat != nil {
		return l.seat.finish()
	}
	l.mu.Lock()
	end, up, closeBy, fare := *l.end, l.upstream, l.closeBy, l.farewell
	l.mu.Unlock()
	rule := &l.Policy.Rules[end.Cause]
	left := max(time.Millisecond, time.Duration(closeBy-now()))
	if up != nil {
		up.hurry(now().add(left))
		if rule.Upstream != 0 {
			up.close(rule.Upstream, "", false)
		}
	}
	if l.client != nil {
		l.closeClient(&end, rule, fare, left)
	}
	if l.client != nil {
		select {
		case <-l.ending: // the last Finish panicked
		default:
			close(l.ending)
		}
	}
	if up != nil {
		l.release(up, closeBy) // neither side waits for the other
	}
	if l.client != nil {
		l.client.wake()
		<-l.clientDone
		l.client.conn.Close()
	}
	l.strays.Wait()
	l.mu.Lock()
	l.upstream = nil
	l.mu.Unlock()
	return end
}

// release lets go of an upstream once its stream has ended, or at the instant
// until.
func (l *Link) release(up *leg, until instant) {
	if l.seat != nil {
		l.seat.stray(up, until)
		return
	}
	l.mu.Lock()
	if l.leaving == nil {
		l.leaving = new(strayed)
	}
	l.leaving.legs = append(l.leaving.legs, up)
	l.mu.Unlock()
	l.strays.Go(func() {
		defer l.recovered(func(any, []byte) {}) // it is closed, and that was all
		up.linger(until)
		l.mu.Lock()
		l.leaving.legs = slices.DeleteFunc(l.leaving.legs, func(other *leg) bool { return other == up })
		l.mu.Unlock()
	})
}

// Cut closes all connections of a session whose end is decided, for a
// process that can wait no longer for its peers.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seat != nil {
		l.seat.cut.Store(true)
		l.post()
		return
	}
	legs := []*leg{l.client, l.upstream}
	if l.leaving != nil {
		legs = append(legs, l.leaving.legs...)
	}
	for _, leg := range legs {
		if leg != nil {
			leg.conn.Close()
		}
	}
}

// closeClient tells the client, if its stream stands where it can be told;
// otherwise end no longer has a code.
func (l *Link) closeClient(end *End, rule *Rule, fare *farewell, left time.Duration) {
	c := l.client
	c.hurry(now().add(left))
	switch {
	case rule.Abort:
		c.abort()
		return
	case end.Cause == ClientClosed && fare != nil:
		c.closeWith(fare.payload, false)
	case end.Code != 0:
		c.close(end.Code, end.Reason, false)
	}
	switch {
	case end.Cause == ClientGone:
	case !c.finish():
		c.abort() // inside a frame: a close frame can't be told from data
		end.Code, end.Reason = 0, ""
	case end.Cause == ClientProtocol, end.Cause == TooBig, end.Cause == ClientSilent, end.Cause == ClientStalled:
		// Its stream can't or won't be read to its close frame.
		c.closeWrite()
	}
}
