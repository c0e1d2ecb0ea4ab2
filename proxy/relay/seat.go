package relay

import (
	"net"
	"os"
	"sync/atomic"
	"time"
)

// seat is a Link's place on a loop. What the pump does with two goroutines
// that wait, a seat does in steps that never do: an event of a socket, a
// call (from any goroutine) to look at what has changed, a timer. All of it
// runs on the loop's goroutine, but what is marked otherwise.
type seat struct {
	link  *Link
	loop  *Loop
	timer timer

	queued    atomic.Bool // in the loop's queue; any goroutine
	finishing atomic.Bool // Finish was called; any goroutine
	cut       atomic.Bool // Cut was called; any goroutine

	soon   bool // turn has to look at it
	again  bool // in the loop's list of those that have had their turns
	left   bool // the session is over: its legs are on their way out
	gone   bool // they are closed
	failed bool // a step has panicked

	silent bool    // the client is no longer read
	paused instant // the client is not read until then: its rate is passed
	rested instant // when the upstream was last found not to be read; 0: it is
	deaf   instant // when the client was found not to take data
	deafTo error   // why

	upstream *leg // that frames go to and come from; nil while there is none
	flight   flight
	strays   []*leg  // former upstreams on their way out
	jobs     [2]*job // messages that are being looked at, by who sent them
}

// take seats a Link and gives it the client's connection. It returns false,
// and has changed nothing, when that can't be done. On a loop that has been
// stopped, which is while the process ends, the session is over at once.
func (p *Loop) take(l *Link, conn net.Conn, early []byte) bool {
	l.mu.Lock()
	up := l.upstream
	l.mu.Unlock()
	if up != nil && !plain(up.conn) {
		return false
	}
	socket, secure := footed(conn)
	fd, err := duplicate(socket)
	if err != nil {
		return false
	}
	upFd := -1
	if up != nil {
		if upFd, err = duplicate(up.conn); err != nil {
			closeSocket(fd)
			return false
		}
	}
	st := &seat{link: l, loop: p}
	st.timer.link = l
	client := newSocketLeg(l, fd, early, Client)
	client.deflate = l.Deflate
	if secure != nil {
		client.secure(secure)
	}
	var further *leg
	if up != nil {
		further = newSocketLeg(l, upFd, up.carry.bytes(), Upstream)
		further.deflate = up.deflate
	}
	l.mu.Lock()
	l.seat, l.client = st, client
	if up != nil {
		l.upstream, l.runs = further, further
	}
	ahead := l.ahead
	if len(ahead) > 0 {
		client.messages, l.ahead = ahead, nil
		client.pending.Store(true)
	}
	st.queued.Store(true)
	l.mu.Unlock()
	p.sessions.Add(1)
	socket.Close()
	if up != nil {
		up.carry.reset()
		up.conn.Close()
	}
	if !p.enqueue(l) {
		st.refuse()
	}
	return true
}

// refuse ends a session that its loop has never seen and never will.
func (st *seat) refuse() {
	l := st.link
	l.End(End{Cause: Failed, Err: errLoopEnded})
	st.untold()
	l.mu.Lock()
	up := l.upstream
	l.mu.Unlock()
	for _, g := range []*leg{l.client, up} {
		if g != nil {
			reset(g.sock.fd)
			closeSocket(g.sock.fd)
			g.sock.fd = -1
		}
	}
	if up != nil {
		up.sock.giveUp()
	}
	st.loop.sessions.Add(-1)
	close(l.clientDone)
}

// post has the Link looked at by its loop. Any goroutine may call it.
func (l *Link) post() {
	if st := l.seat; st.queued.CompareAndSwap(false, true) {
		st.loop.enqueue(l)
	}
}

// attach is Attach on a loop; the worker calls it.
func (st *seat) attach(conn net.Conn, early []byte, inflate, deflate bool) error {
	l := st.link
	if l.ended() {
		return errOver
	}
	fd, err := -1, errNoSocket
	socket, secure := footed(conn)
	if socket != nil {
		fd, err = duplicate(socket)
	}
	if err != nil {
		return err
	}
	up := newSocketLeg(l, fd, early, Upstream)
	up.deflate = deflate
	up.sock.unbegun, up.sock.inflate = true, inflate
	l.mu.Lock()
	if l.end != nil {
		l.mu.Unlock()
		closeSocket(fd)
		return errOver
	}
	if secure != nil {
		up.secure(secure)
	}
	l.upstream, l.runs = up, up
	l.mu.Unlock()
	socket.Close()
	l.post()
	return nil
}

// finish is Finish on a loop; the worker calls it.
func (st *seat) finish() End {
	l := st.link
	st.finishing.Store(true)
	l.post()
	<-l.clientDone
	l.strays.Wait() // Inspectors that are being called
	l.mu.Lock()
	defer l.mu.Unlock()
	l.upstream = nil
	return *l.end
}

// current returns the upstream that client data goes to, or nil.
func (st *seat) current() *leg {
	if st.upstream == nil && !st.left {
		st.arrive() // it may be there without our having been called yet
	}
	if st.upstream == nil || st.upstream.failed {
		return nil
	}
	return st.upstream
}

// event handles what a socket has to say.
func (st *seat) event(g *leg, events uint32) {
	s := g.sock
	if events&^eventOut != 0 {
		s.readable = true
		if s.tls != nil {
			s.tls.wet = true
		}
		if events&eventEnd != 0 {
			s.ended = true
			if events&eventGone != 0 {
				s.gone = true
				st.soon = st.soon || g == st.link.client && st.unread()
			}
		}
	}
	if events&eventOut != 0 && s.backlog.n > 0 {
		st.drain(g)
	}
	if st.left || g != st.link.client && g != st.upstream {
		st.soon = true // on its way out
	}
	st.advance()
}

// unread reports whether only its events can tell how a client is.
func (st *seat) unread() bool { return st.silent || st.paused != 0 || st.link.full() }

// drain writes what a leg's peer has not taken before.
func (st *seat) drain(g *leg) {
	l := st.link
	err := g.drain()
	switch {
	case err != nil && g == l.client:
		if !st.left {
			st.deafened(err)
		}
	case err != nil && g == st.upstream:
		l.ground(g)
		l.upstreamRefused(g, err)
	case err == nil && !g.backed():
		if g == st.upstream {
			l.land(g)
		}
		if g.pending.Load() {
			g.flush()
		}
	}
	st.soon = true
}

// advance moves the frames that are there.
func (st *seat) advance() {
	if !st.left {
		st.readClient()
		st.readUpstream()
	}
	if st.soon {
		st.turn()
	}
}

// yield puts off the rest of what a socket has to say.
func (st *seat) yield() {
	if !st.again {
		st.again = true
		st.loop.later = append(st.loop.later, st.link)
	}
}

// clientRests reports whether the client is not to be read now.
func (l *Link) clientRests() bool {
	st := l.seat
	return st.behind() || st.silent || st.paused != 0 || l.full() || st.jobs[Client] != nil || l.client.sock.answered
}

// behind reports whether the upstream has yet to take what went to it before.
func (st *seat) behind() bool {
	up := st.upstream
	return up != nil && up.sock.backlog.n > 0 && !up.failed
}

// upstreamRests reports whether the upstream is not to be read now.
func (l *Link) upstreamRests(up *leg) bool {
	st := l.seat
	return l.client.sock.backlog.n > 0 || up.sock.over || st.deaf != 0 || st.jobs[Upstream] != nil || up.sock.answered
}

func (st *seat) readClient() {
	l := st.link
	c := l.client
	for turns := 0; (c.sock.readable || c.fresh) && !l.clientRests(); turns++ {
		if turns == maxTurns {
			st.yield()
			return
		}
		b, err := c.draw(st.loop)
		if err == errDry {
			return
		}
		if err != nil {
			st.clientStops(err)
			return
		}
		rest, err := l.fromClient(b)
		if err == errRest && l.wait > 0 {
			st.paused = st.loop.now.add(l.wait)
			l.wait = 0
			st.soon = true
		}
		c.stow(rest, err == errRest)
		if err != nil && err != errRest {
			st.clientStops(err)
			return
		}
	}
}

// clientStops ends the reading of the client.
func (st *seat) clientStops(err error) {
	l := st.link
	if st.silent {
		return
	}
	st.silent, st.soon = true, true
	if err != errOver {
		l.clientEnded(err)
	}
	if st.flight.up == nil {
		l.hold.reset()
		l.held.Store(0)
	}
	l.up.pend.reset()
	l.forget(Client)
}

func (st *seat) readUpstream() {
	l, up := st.link, st.upstream
	if up == nil {
		return
	}
	for turns := 0; (up.sock.readable || up.fresh) && !l.upstreamRests(up); turns++ {
		if turns == maxTurns {
			st.yield()
			return
		}
		b, err := up.draw(st.loop)
		if err == errDry {
			return
		}
		if err != nil {
			st.upstreamStops(l.upstreamEnded(err))
			return
		}
		rest, loss, over := l.fromUpstream(up, b)
		up.stow(rest, l.upstreamRests(up))
		switch {
		case over && !l.ended():
			st.soon = true // the client takes nothing; why will be known
			return
		case over || loss != nil:
			st.upstreamStops(loss)
			return
		}
		select {
		case <-l.done:
			st.soon = true // the client may be at a boundary now
			return
		default:
		}
	}
}

// upstreamStops ends the reading of the upstream and tells Run.
func (st *seat) upstreamStops(loss *Loss) {
	l, up := st.link, st.upstream
	if up.sock.over {
		return
	}
	st.soon = true
	st.jobs[Upstream] = nil
	up.sock.over = true
	up.sock.loss = l.lose(up, loss)
	up.sock.giveUp()
}

// stray lets a former upstream leave by itself.
func (st *seat) stray(up *leg, until instant) {
	st.upstream, st.rested = nil, 0
	st.depart(up, until, up.said())
	if up.said() {
		up.closeWrite()
	}
	st.strays = append(st.strays, up)
	st.soon = true
}

// deafened notes that the client takes no data. Its reader may still find a
// close frame before the end of the stream.
func (st *seat) deafened(err error) {
	if st.deaf == 0 {
		st.deaf, st.deafTo = st.loop.now, err
	}
	st.soon = true
}

// deafGrace is how long a client's close frame is looked for after it was
// found to take no data.
const deafGrace = time.Second

// turn looks at everything beside the frames: what other goroutines have
// asked for, what is due, where the session stands.
func (st *seat) turn() {
	st.soon = false
	if st.gone {
		return
	}
	if st.timer.armed() && st.timer.due() <= st.loop.now {
		st.loop.wheel.stop(&st.timer)
	}
	st.arrive()
	if !st.left && st.finishing.Load() {
		st.leave()
	}
	var next instant
	if st.left {
		next = st.leaving()
	} else {
		if st.cut.Load() {
			st.stop()
		}
		st.conclude()
		next = st.watch()
	}
	for i := 0; i < len(st.strays); i++ {
		if at := st.leaves(st.strays[i]); at != 0 {
			next = earliest(next, at)
			continue
		}
		st.strays = append(st.strays[:i], st.strays[i+1:]...)
		i--
	}
	if st.left && st.legsGone() {
		st.vacate()
		return
	}
	if !st.left {
		st.readClient()
		st.readUpstream()
		if st.soon {
			st.link.post()
		}
	}
	st.loop.arm(&st.timer, next)
}

// arrive watches the sockets that are new.
func (st *seat) arrive() {
	l := st.link
	l.mu.Lock()
	up := l.upstream
	l.mu.Unlock()
	for _, g := range []*leg{l.client, up} {
		if g == nil || g.sock.place != 0 || g.sock.fd < 0 || g.sock.over {
			continue
		}
		if err := st.loop.enter(g); err != nil {
			l.End(End{Cause: Failed, Err: err})
			g.sock.abort = true
		}
	}
	if up != nil && up != st.upstream && !up.sock.over {
		st.upstream = up
		if up.sock.unbegun {
			up.sock.unbegun = false
			l.begin(up.sock.inflate)
		}
	}
}

// watch does what is due while frames flow, and returns when to look again.
func (st *seat) watch() (next instant) {
	l, t := st.link, st.loop.now
	c := l.client
	if c.pending.Load() {
		c.flush()
	}
	if !st.silent {
		next = st.watchClient(t)
	}
	if c.backed() && st.farewellOver(t) {
		c.cut(os.ErrDeadlineExceeded) // it had its time
	}
	up := st.upstream
	if up != nil && !up.sock.over {
		if up.pending.Load() && !up.failed {
			up.flush()
		}
		next = earliest(next, st.watchUpstream(up, t))
	}
	if c.backed() && c.stall > 0 && !l.ended() {
		due := c.sock.since.add(c.stall)
		if t >= due {
			c.cut(os.ErrDeadlineExceeded)
			l.clientStalls()
		} else {
			next = earliest(next, due)
		}
	}
	if st.deaf != 0 && !l.ended() {
		next = earliest(next, st.hear(t))
	}
	return next
}

// stop ends all reading: nobody is waited for any more.
func (st *seat) stop() {
	st.clientStops(errOver)
	if st.upstream != nil {
		st.upstreamStops(nil)
	}
}

// farewellOver reports whether the time for the upstream's last words is up.
func (st *seat) farewellOver(t instant) bool {
	l := st.link
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.farewell != nil && l.farewell.until != 0 && t >= l.farewell.until
}

func (st *seat) watchClient(t instant) instant {
	l := st.link
	if st.paused != 0 {
		l.last.Store(int64(t)) // who is made to wait is not idle
		if t >= st.paused {
			st.paused = 0
			l.client.heard.Store(int64(t))
		}
	}
	if l.clientRests() {
		l.client.heard.Store(int64(t))
	}
	if (st.paused != 0 || l.full()) && l.client.reset() {
		st.clientStops(errReset)
		return 0
	}
	next, err := l.clientTick()
	if err != nil {
		st.clientStops(err)
		return 0
	}
	return earliest(next, st.paused)
}

func (st *seat) watchUpstream(up *leg, t instant) instant {
	l := st.link
	if up.backed() && up.stall > 0 && !up.failed && t >= up.sock.since.add(up.stall) {
		l.ground(up)
		l.upstreamRefused(up, os.ErrDeadlineExceeded)
	}
	if st.rested != 0 {
		l.excuse(up, st.rested, t)
		st.rested = 0
	}
	if l.upstreamRests(up) {
		up.heard.Store(int64(t))
		st.rested = t
	}
	up.endStream()
	next, loss, over := l.upstreamTick(up)
	if loss != nil && st.jobs[Upstream] != nil {
		return 0 // what it has said is passed on before
	}
	if over || loss != nil {
		st.upstreamStops(loss)
		return 0
	}
	if up.backed() && up.stall > 0 {
		next = earliest(next, up.sock.since.add(up.stall))
	}
	return next
}

// hear waits for the last word of a client that takes no data.
func (st *seat) hear(t instant) instant {
	l := st.link
	l.mu.Lock()
	fare := l.farewell
	l.mu.Unlock()
	due := st.deaf.add(deafGrace)
	switch {
	case fare != nil:
		l.End(fare.end)
	case t >= due:
		l.End(End{Cause: ClientGone, Err: st.deafTo})
	default:
		return due
	}
	return 0
}
