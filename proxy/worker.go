package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// worker is a Session as suture sees it: one Serve is one upstream's life.
// It returns the loss of that upstream to be served again, and
// suture.ErrDoNotRestart when the session is over.
type worker Session

// String names the worker in the supervisor's log.
func (w *worker) String() string { return "session " + w.key }

var (
	errNoPool    = errors.New("upstream is no longer configured")
	errIntensity = errors.New("restart intensity is spent")
	errHold      = errors.New("hold has expired")
	errEnded     = errors.New("session has ended")
)

// Serve gives the session its next upstream and stays with it to its end.
// While frames flow it does not watch ctx, which would cost every session a
// kilobyte: endAll ends every session before the tree is stopped.
func (w *worker) Serve(ctx context.Context) error {
	s := (*Session)(w)
	crashed := s.serving
	s.serving = true
	err := s.serve(ctx, crashed)
	s.serving = false
	return err
}

func (s *Session) serve(ctx context.Context, crashed bool) error {
	begun, err := s.aside(func() (bool, error) { return s.begin(ctx, crashed) })
	if begun && s.waiting != nil { // the client was answered before any upstream is there
		begun, err = s.aside(func() (bool, error) { return s.seek(ctx) })
	}
	if !begun {
		return err
	}
	s.proxy.fault(s, faultRun)
	return s.run()
}

// aside runs a step in another goroutine and joins it: the deep stack that
// dialling grows is gone afterwards, while the worker's stays for hours. Until
// the client is answered that goroutine is its request's, which has nothing
// else to do.
func (s *Session) aside(step func() (bool, error)) (begun bool, err error) {
	var crash *stepPanic
	done := make(chan struct{})
	run := func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				crash = &stepPanic{v, debug.Stack()}
			}
		}()
		begun, err = step()
	}
	if s.opening != nil {
		s.opening.steps <- run
	} else {
		go run()
	}
	<-done
	if crash != nil {
		panic(crash) // the worker's own: its supervisor hears of it
	}
	return begun, err
}

// stepPanic is a panic that has come up beside the worker.
type stepPanic struct {
	value any
	stack []byte
}

// Error says what the panic was and where.
func (p *stepPanic) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

// begin gives the session an upstream, and the client its 101 where it has
// none. It returns false when the session is over, or can't go on for now.
func (s *Session) begin(ctx context.Context, crashed bool) (bool, error) {
	if crashed && !s.intensity.Allow(time.Now()) {
		s.end(End{Cause: relay.Failed, Err: errIntensity})
		if !s.answered {
			return false, s.refused(internalError())
		}
		return false, s.finish()
	}
	if crashed && !s.link.Attached() {
		s.closeUpstream() // it was dialled, and that is all
	}
	s.proxy.fault(s, faultServe)
	switch {
	case !s.answered:
		if err := s.first(); err != nil {
			return false, s.refused(err)
		}
	case !s.link.Attached():
		return s.seek(ctx)
	case s.waiting != nil:
		s.resumed() // a panic came between
	}
	return true, nil
}

// seek finds the next upstream for a client that is held.
func (s *Session) seek(ctx context.Context) (bool, error) {
	if err := s.again(ctx); err != nil {
		return false, s.finish()
	}
	return true, nil
}

// run stays with the attached upstream.
func (s *Session) run() error {
	if s.route.alone {
		s.link.Wait()
		return s.finish()
	}
	loss := s.link.Run()
	if loss == nil {
		return s.finish()
	}
	s.releaseUpstream()
	if !s.outlives() {
		s.end(End{Cause: lossCause(loss), Err: loss})
		return s.finish()
	}
	now := time.Now()
	s.planned = loss.Cause == relay.LossMoved
	if !s.planned && !s.intensity.Allow(now) {
		s.end(End{Cause: relay.GaveUp, Err: fmt.Errorf("%w: %w", errIntensity, loss)})
		return s.finish()
	}
	s.holdBegins(now, s.route.continuity.Hold.Std())
	s.restarts.Add(1)
	s.route.count.restarted(loss.Cause.String())
	s.Log().Info("upstream lost, client held", zap.String("target", s.Target()), zap.Error(loss))
	s.upstreamLost(loss)
	return loss
}

// first dials the first upstream and has the client answered. With
// accept_early the client is answered before, and held.
func (s *Session) first() error {
	switch {
	case s.route.alone:
		s.agreed = s.route.extensions.agree(s.offer, aloneAnswer(s.offer))
		return s.admit(nil)
	case s.route.continuity != nil && s.route.continuity.AcceptEarly:
		// The client is told what most upstreams would answer; those that
		// would not are no upstreams for it.
		s.agreed = s.route.extensions.agree(s.offer, aloneAnswer(s.offer))
		if err := s.admit(nil); err != nil {
			return err
		}
		s.holdBegins(time.Now(), s.route.continuity.Hold.Std())
		s.planned = true      // nothing was lost: no back-off
		s.prepaid.Store(true) // nor is it a redial
		return nil
	}
	if !s.link.Attached() {
		// Not the worker's context: what is derived from it would leave its
		// traces there for as long as the session lives.
		conn, err := s.dial(context.Background(), s.proxy.pools.Get(s.route.upstream), false)
		if err != nil {
			return err
		}
		header := conn.Response.Header
		conn.Response = nil
		s.agreed = s.route.extensions.agree(s.offer, header)
		s.opening.header = header
		if err := s.attach(conn, header); err != nil {
			return err
		}
	}
	if err := s.admit(s.opening.header); err != nil {
		return err
	}
	if !s.outlives() && s.target.Load().Evicts() { // meanwhile
		s.evict()
	}
	return nil
}

// aloneAnswer is what an upstream would answer on a route that has none:
// the first subprotocol that the client offers.
func aloneAnswer(offer http.Header) http.Header {
	h := http.Header{}
	for name := range field.Elements(offer["Sec-Websocket-Protocol"]) {
		if !plug.IsTokenProtocol(name) {
			h.Set("Sec-Websocket-Protocol", name)
			break
		}
	}
	return h
}

// admit has the client answered with 101 and takes its connection.
func (s *Session) admit(header http.Header) error {
	o := s.opening
	c := s.takeOver(o.w, o.r, header) // within answerTimeout
	o.over = true
	if c.err != nil {
		return c.err // nobody is left to be told
	}
	s.answered = true
	told := s.told()
	s.subprotocol.Store(&told)
	s.opening = nil
	s.offer = nil
	if s.route.continuity == nil { // there is no further dial
		s.shake, s.agreed.Offer = nil, ""
	}
	s.opened101()
	s.link.Agree(s.agreed.Rsv, s.agreed.Deflate)
	s.start(c)
	s.setState(Open) // last: an open session takes pushes
	return nil
}

// again finds the next upstream for a client that is held, until its hold
// expires. An error says that the session's end is decided.
func (s *Session) again(ctx context.Context) error {
	c := s.route.continuity
	if c == nil || s.waiting == nil {
		// A worker that panicked between two upstreams.
		if !s.outlives() {
			s.end(End{Cause: relay.Failed})
			return errEnded
		}
		s.holdBegins(time.Now(), c.Hold.Std())
		s.protocolLost()
	}
	ctx, cancel := context.WithDeadline(ctx, s.waiting.until)
	defer cancel()
	defer s.whenDone(cancel)()
	pause := newBackoff(c.Backoff)
	if s.planned {
		pause.next = 0
	}
	for again := false; ; again = true {
		err := pause.wait(ctx)
		var conn *upstream.Conn
		if err == nil {
			conn, err = s.redial(ctx, again)
		}
		if err == nil {
			err = s.resume(conn)
		}
		if err == nil {
			return nil
		}
		switch {
		case s.link.Ended() != nil:
			return errEnded
		case ctx.Err() != nil:
			s.end(End{Cause: relay.GaveUp, Err: fmt.Errorf("%w: %w", errHold, err)})
			return errEnded
		case errors.Is(err, errNoPool):
			s.end(End{Cause: relay.GaveUp, Err: err})
			return errEnded
		case refusedForGood(err):
			s.end(End{Cause: relay.RedialRefused, Err: err})
			return errEnded
		}
		s.Log().Debug("redial failed", zap.Int("attempt", s.Attempt()), zap.Error(err))
	}
}

// redial waits for the pool's rate and dials once. Again says that it has come
// to nothing before.
func (s *Session) redial(ctx context.Context, again bool) (*upstream.Conn, error) {
	pool := s.proxy.pools.Get(s.route.upstream)
	if pool == nil {
		return nil, errNoPool
	}
	if !s.prepaid.Swap(false) {
		if err := pool.WaitRedial(ctx); err != nil {
			return nil, fmt.Errorf("wait for redial_rate: %w", err)
		}
	}
	conn, err := s.dial(ctx, pool, again)
	if refused, ok := errors.AsType[*upstream.Refused](err); ok {
		refused.Response.Body.Close() // its client is answered already
	}
	return conn, err
}

// refusedForGood reports whether no further dial can help: the upstream
// refuses this session, or will not agree to what the client was told.
func refusedForGood(err error) bool {
	if r, ok := errors.AsType[*upstream.Refused](err); ok {
		return !r.Passing()
	}
	d, ok := errors.AsType[*upstream.DialError](err)
	if !ok || len(d.Attempts) == 0 {
		return false
	}
	for _, a := range d.Attempts {
		if !errors.Is(a.Err, upstream.ErrUnsuitable) {
			return false
		}
	}
	return true
}

// dial dials once; again says that it has come to nothing before. The
// session's end ends it, and so does ctx's.
func (s *Session) dial(ctx context.Context, pool *upstream.Pool, again bool) (conn *upstream.Conn, err error) {
	if pool == nil {
		return nil, errNoPool
	}
	s.proxy.fault(s, faultDial)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.dialling.Store(&cancel)
	defer s.dialling.Store(nil)
	if s.link.Ended() != nil {
		cancel()
	}
	shake := s.handshake()
	shake.Again = again
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("dial upstream: panic: %v", v)
		}
	}()
	if conn, err = pool.Dial(ctx, &shake); err == nil {
		s.upstream = conn
	}
	return conn, err
}

// handshake is what goes up with one dial.
func (s *Session) handshake() upstream.Handshake {
	h := *s.shake
	first := !s.answered
	rule := s.route.extensions
	var extra []byte
	var subprotocols, extensions []string
	if first {
		subprotocols = s.offer["Sec-Websocket-Protocol"]
		extensions = rule.offerUp(s.offer["Sec-Websocket-Extensions"])
	} else {
		if s.agreed.Offer != "" {
			subprotocols = []string{s.agreed.Offer}
		}
		switch {
		case rule == extTerminate:
			extensions = rule.offerUp(nil)
		case s.agreed.Extensions != "":
			extensions = []string{s.agreed.Extensions}
		}
	}
	extra = appendLines(extra, "Sec-WebSocket-Protocol", subprotocols)
	extra = appendLines(extra, "Sec-WebSocket-Extensions", extensions)
	h.Header = s.base
	h.Extra = extra
	h.Each = s.appendAttempt
	h.Redial = !first
	h.Prefer = s.moveTo.Swap(nil)
	if !first {
		h.Avoid = s.target.Load()
	}
	h.Check = func(r *http.Response) error { return rule.checkAnswer(r.Header, first, &s.agreed) }
	return h
}

// appendAttempt appends the header line that numbers the session's requests
// to upstreams: any of them may have been seen, so no two are alike.
func (s *Session) appendAttempt(b []byte) []byte {
	b = append(b, "Stent-Attempt: "...)
	b = strconv.AppendInt(b, int64(s.attempt.Add(1)), 10)
	return append(b, "\r\n"...)
}

// attach gives the Link a dialled upstream. An error leaves it to be closed.
func (s *Session) attach(conn *upstream.Conn, header http.Header) error {
	var inflate, deflate bool
	if s.route.extensions == extTerminate {
		inflate, deflate = terminated(header)
	}
	s.target.Store(conn.Target)
	early := conn.Early
	conn.Early = nil
	s.proxy.fault(s, faultAttach)
	if err := s.link.Attach(conn.Conn, early, inflate, deflate); err != nil {
		return fmt.Errorf("attach upstream: %w", err)
	}
	conn.Conn = nil // the Link's
	s.proxy.fault(s, faultAttached)
	return nil
}

// resume lets a held client go on with a new upstream. An error is one of a
// dial: that upstream is closed.
func (s *Session) resume(conn *upstream.Conn) error {
	header := conn.Response.Header
	conn.Response = nil
	if err := s.attach(conn, header); err != nil {
		s.closeUpstream()
		return err
	}
	s.resumed()
	return nil
}

// resumed ends the hold of a client that has an upstream again.
func (s *Session) resumed() {
	now := time.Now()
	held := now.Sub(s.waiting.since)
	s.holdEnds(now)
	s.setState(Open)
	s.Log().Info("upstream found", zap.String("target", s.Target()), zap.Int("attempt", s.Attempt()), zap.Duration("held", held))
	each(s, func(h UpstreamWatcher) { h.UpstreamUp(s, s.Attempt()) })
}

// releaseUpstream gives the place on the target back. The Link closes the
// connection, in its own time.
func (s *Session) releaseUpstream() {
	if s.upstream != nil {
		s.upstream.Release()
		s.upstream = nil
	}
}

func (s *Session) closeUpstream() {
	if s.upstream != nil {
		s.upstream.Close()
		s.upstream = nil
	}
}

// whenDone calls f when the session's end is decided; the returned function
// ends the watch and joins it.
func (s *Session) whenDone(f func()) func() {
	stop, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		select {
		case <-s.link.Done():
			f()
		case <-stop:
		}
	}()
	return func() {
		close(stop)
		<-joined
	}
}

// refused ends a session whose client has no 101 yet: it gets an HTTP
// answer instead.
func (s *Session) refused(err error) error {
	if s.answered {
		return s.finish()
	}
	s.end(End{Cause: relay.ClientGone, Err: err})
	end := s.link.Finish() // an upstream that has answered is told
	s.closeUpstream()
	if o := s.opening; !o.over {
		o.err, o.over = err, true
	}
	s.over(end)
	return suture.ErrDoNotRestart
}

// finish carries the session's end out.
func (s *Session) finish() error {
	s.setState(Closing)
	s.holdEnds(time.Now())
	end := s.link.Finish()
	s.closeUpstream()
	s.over(end)
	return suture.ErrDoNotRestart
}

// backoff is the pause before each redial.
type backoff struct {
	config.Backoff
	next time.Duration
}

func newBackoff(c config.Backoff) *backoff { return &backoff{c, c.Min.Std()} }

// wait pauses, spread by the jitter, and doubles the next pause.
func (b *backoff) wait(ctx context.Context) error {
	d := b.next
	b.next = min(max(2*d, b.Min.Std()), b.Max.Std())
	if d <= 0 {
		return ctx.Err()
	}
	if b.Jitter > 0 {
		d = time.Duration(float64(d) * (1 - b.Jitter + 2*b.Jitter*rand.Float64()))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
