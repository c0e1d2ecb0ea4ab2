package relay

import (
	"errors"
	"os"
	"time"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy/frame"
)

// Run relays what the attached upstream says until that upstream is lost or
// the session's end is decided, and returns the Loss or nil. After a panic
// in it Run may be called again and goes on with the same upstream, if its
// stream is whole.
func (l *Link) Run() *Loss {
	if l.seat != nil {
		up := l.watched()
		if up == nil {
			return &Loss{Cause: LossPanic}
		}
		return up.watch()
	}
	l.mu.Lock()
	up := l.upstream
	l.mu.Unlock()
	if up == nil {
		return &Loss{Cause: LossPanic}
	}
	if l.busy {
		// The last Run panicked with data in hand, or close to it.
		return l.lose(up, &Loss{Cause: LossPanic})
	}
	for {
		until, loss, over := l.upstreamTick(up)
		if over || loss != nil {
			return l.lose(up, loss)
		}
		loss, over, err := l.readUpstreamUntil(up, until)
		switch {
		case err == errWake:
		case err != nil:
			return l.lose(up, l.upstreamEnded(err))
		case over || loss != nil:
			return l.lose(up, loss)
		}
	}
}

// readUpstreamUntil moves frames until something else is to be done, or
// this upstream is over.
func (l *Link) readUpstreamUntil(up *leg, until instant) (*Loss, bool, error) {
	for {
		l.busy = true
		buf, n, err := up.read(until)
		if err != nil {
			l.busy = false
			return nil, false, err
		}
		rest, loss, over := l.fromUpstream(up, buf.b[:n])
		up.consumed(buf, rest)
		if up.timed.Load() {
			l.excuse(up, instant(up.heard.Load()), now())
		}
		l.busy = false
		if over || loss != nil {
			return loss, over, nil
		}
		select {
		case <-l.done:
			return nil, false, errWake // the client may be at a boundary now
		default:
		}
	}
}

// running returns the upstream that Run reads.
func (l *Link) running() *leg {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upstream
}

// watched returns the upstream that Run watches a loop read.
func (l *Link) watched() *leg {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs
}

// isFed reports whether an upstream has what the ones before it had.
func (l *Link) isFed(up *leg) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return up.fed
}

// Wait is Run for a session without an upstream.
func (l *Link) Wait() { <-l.done }

// upstreamTick does what is due beside reading. It returns when to be woken
// for it again, and how this upstream ended if it did.
func (l *Link) upstreamTick(up *leg) (next instant, loss *Loss, over bool) {
	t := now()
	l.mu.Lock()
	end, fare, closeBy := l.end, l.farewell, l.closeBy
	moving, stuck, readBy := up.moving, up.stuck, up.readBy
	l.mu.Unlock()
	if end != nil {
		return l.untilBoundary(end, closeBy, t)
	}
	switch {
	case fare != nil:
		if t >= fare.until {
			l.End(fare.end)
			return 0, nil, true
		}
		next = fare.until
	case stuck:
		return 0, &Loss{Cause: LossStalled}, false
	case readBy != 0:
		if t >= readBy && moving && !l.down.final && l.client.insideMessage() {
			l.down.final = true
			readBy = l.goOn(up, instant(up.heard.Load()))
		}
		if t >= readBy {
			if moving {
				return 0, &Loss{Cause: LossMoved}, false
			}
			return 0, l.upstreamEnded(errUnwritable), l.ended()
		}
		next = readBy
	case moving && up.said():
		l.mu.Lock()
		next = l.readOn(up, t)
		l.mu.Unlock()
	case moving:
		next = t.add(movePoll) // a large message is on its way to it
	}
	if l.expiry != 0 && fare == nil {
		// The client's reader may be kept waiting by this very upstream.
		if t >= l.expiry {
			l.End(End{Cause: Expired})
			return l.upstreamTick(up)
		}
		next = earliest(next, l.expiry)
	}
	if moving && up.said() {
		return next, nil, false // no ping follows our close frame, and it has its time
	}
	due, silent := up.keepalive(l.Policy.Keepalive, t)
	if silent {
		if fare != nil {
			l.End(fare.end)
			return 0, nil, true
		}
		return 0, &Loss{Cause: LossSilent}, false
	}
	return earliest(next, due), nil, false
}

// readOn sets the time that an upstream which is over has to say what it
// still has, and returns when that ends. l.mu is held.
func (l *Link) readOn(up *leg, t instant) instant {
	up.readBy = t.add(l.Policy.Timeouts.Close)
	up.timed.Store(true)
	return up.readBy
}

// goOn lets an upstream that is left, and whose time is up, end the message of
// which the client has a part, while more of it comes within the grace.
func (l *Link) goOn(up *leg, t instant) instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	up.readBy = t.add(l.grace())
	return up.readBy
}

// grace is how long an upstream that is over may keep its session waiting
// beside its own time.
func (l *Link) grace() time.Duration { return max(l.Policy.Timeouts.Write, l.Policy.Timeouts.Close) }

// excuse gives an upstream that is over the time back in which it was not
// read, since what it had said before was not passed on yet. In all that is no
// more than the client may take nothing for: it might never stop. Its last
// message does.
func (l *Link) excuse(up *leg, since, t instant) {
	if up.timed.Load() {
		l.mu.Lock()
		more := time.Duration(t - since)
		if !l.down.final {
			more = min(more, l.grace()-up.excused)
			up.excused += more
		}
		up.readBy = up.readBy.add(more)
		l.mu.Unlock()
	}
}

// movePoll is how often an upstream that is to be left is looked at while
// it stands inside a message.
const movePoll = 50 * time.Millisecond

var errUnwritable = errors.New("upstream takes no more data")

func (l *Link) ended() bool { return l.Ended() != nil }

// untilBoundary goes on after the end is decided until the client's stream
// stands between two frames, so that it can be told.
func (l *Link) untilBoundary(end *End, closeBy, t instant) (instant, *Loss, bool) {
	if l.Policy.Rules[end.Cause].Abort || end.Code == 0 || l.client == nil || l.client.atBoundary() || t >= closeBy {
		return 0, nil, true
	}
	l.client.close(end.Code, end.Reason, false)
	if l.client.finish() {
		return 0, nil, true
	}
	return closeBy, nil, false
}

// fromUpstream handles one chunk and returns its unconsumed rest.
func (l *Link) fromUpstream(up *leg, b []byte) (rest []byte, loss *Loss, over bool) {
	t := instant(up.heard.Load())
	defer l.down.release()
	for len(b) > 0 {
		st, err := l.down.next(b, t)
		if st.message == nil {
			if l.flushRun() != nil {
				return nil, nil, true
			}
			l.down.settle(t)
		}
		if len(st.out) > 0 {
			if !l.toClient(up, st.out, st.mark) {
				return nil, nil, true
			}
			if l.down.final {
				if !l.client.insideMessage() {
					return nil, &Loss{Cause: LossMoved}, false
				}
				l.goOn(up, now())
			}
		}
		if st.message != nil {
			if err := l.message(Upstream, st.message, t); err == errRest {
				return b[st.n:], nil, false
			} else if err != nil {
				return nil, nil, true
			}
			if l.Replayer != nil && !l.isFed(up) {
				l.client.wake() // it may have answered the greeting
			}
		}
		if st.control != nil {
			loss, over := l.upstreamControl(up, st.control)
			if loss != nil || over {
				return nil, loss, over
			}
		}
		if err != nil {
			loss, over := l.upstreamBroke(up, err)
			return nil, loss, over
		}
		if st.n == 0 {
			return b, nil, false
		}
		b = b[st.n:]
		if l.seat != nil && l.upstreamRests(up) {
			return b, nil, l.flushRun() != nil
		}
	}
	return nil, nil, l.flushRun() != nil
}

// toClient writes to the client. It returns false when that is over.
func (l *Link) toClient(up *leg, p []byte, m mark) bool {
	_, err := l.client.write(p, m)
	switch {
	case err == nil:
		return true
	case errors.Is(err, errClosed):
		return false // our close frame is out; the end is decided
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.clientStalls()
		return false
	}
	l.clientUnwritable(up, err)
	return false
}

// clientStalls ends the session of a client that takes no data.
func (l *Link) clientStalls() {
	end := End{Cause: ClientStalled}
	l.mu.Lock()
	if l.farewell != nil {
		end = l.farewell.end
	}
	l.mu.Unlock()
	l.End(end)
}

// clientUnwritable waits for the client's reader, which may still find a
// close frame before the end of the stream.
func (l *Link) clientUnwritable(up *leg, err error) {
	if l.seat != nil {
		l.seat.deafened(err)
		return
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		l.mu.Lock()
		fare := l.farewell
		l.mu.Unlock()
		if fare != nil {
			l.End(fare.end)
			return
		}
		select {
		case <-l.done:
			return
		case <-up.kick:
		case <-timer.C:
			l.End(End{Cause: ClientGone, Err: err})
			return
		}
	}
}

// upstreamControl acts on one control frame of the upstream.
func (l *Link) upstreamControl(up *leg, raw []byte) (loss *Loss, over bool) {
	c := parseControl(raw)
	switch c.op {
	case frame.Ping:
		l.Counters[Upstream].Pings.Add(1)
		if l.Policy.Assemble || !l.forwardPing(l.client, raw, c.payload()) {
			up.inject(frame.Pong, c.payload())
		}
	case frame.Pong:
		l.pong(up, l.client, raw, c.payload())
	case frame.Close:
		return l.upstreamClosed(up, c.payload())
	}
	return nil, false
}

// upstreamClosed acts on the upstream's close frame.
func (l *Link) upstreamClosed(up *leg, payload []byte) (*Loss, bool) {
	code, reason, err := frame.ParseClose(payload)
	if err != nil {
		return l.upstreamBroke(up, err)
	}
	if l.Policy.Assemble && !utf8.Valid(reason) {
		return l.upstreamBroke(up, frame.ErrUTF8)
	}
	l.mu.Lock()
	fare, moving := l.farewell, up.moving
	l.mu.Unlock()
	switch {
	case fare != nil && fare.cause == ClientClosed && !l.Policy.Assemble && !moving: // or it answers our own
		l.client.closeWith(payload, false)
		fare.end.Code, fare.end.Reason = code, string(reason)
		l.End(fare.end)
		return nil, true
	case fare != nil:
		l.End(fare.end)
		return nil, true
	case moving:
		return &Loss{Cause: LossMoved}, false
	case l.Policy.comesBack(code) && !l.client.insideMessage():
		return &Loss{Cause: LossClosed, Code: code, echo: append([]byte(nil), payload...)}, false
	}
	// Decided first, and the client told last: its answer is quick, and is
	// neither the end's cause nor to get there before the echo.
	l.End(End{Cause: UpstreamClosed, Code: code, Reason: string(reason)})
	up.closeWith(payload, false)
	l.client.closeWith(payload, false)
	return nil, true
}

// upstreamBroke acts on a break of the protocol by the upstream.
func (l *Link) upstreamBroke(up *leg, err error) (*Loss, bool) {
	var fe *frame.Error
	if errors.As(err, &fe) && fe.Code != frame.CodeProtocol {
		l.End(broke(causeOf(fe), err))
		return nil, true
	}
	l.mu.Lock()
	fare := l.farewell
	l.mu.Unlock()
	if fare != nil {
		l.End(fare.end)
		return nil, true
	}
	return &Loss{Cause: LossProtocol, Err: err}, false
}

// upstreamEnded sorts the end of the upstream's connection.
func (l *Link) upstreamEnded(err error) *Loss {
	l.mu.Lock()
	fare, torn, up := l.farewell, l.torn, l.upstream
	moving := up != nil && up.moving
	l.mu.Unlock()
	switch {
	case fare != nil:
		l.End(fare.end)
		return nil
	case l.client.insideMessage(): // also where it is torn the other way: that could be told
		l.End(End{Cause: UpstreamTorn, Err: err})
		return nil
	case torn:
		l.End(End{Cause: ClientTorn, Err: err})
		return nil
	case moving:
		return &Loss{Cause: LossMoved}
	}
	return &Loss{Cause: LossBroken, Err: err}
}

// lose lets go of an upstream that is lost; of one whose session has ended
// Finish takes care. The client's ping that it owes an answer to is
// answered, and answers to its own pings are nobody's from now on.
func (l *Link) lose(up *leg, loss *Loss) *Loss {
	l.down.pend.reset()
	l.busy = false
	l.forget(Upstream)
	if loss == nil {
		return nil
	}
	until := now().add(l.Policy.Timeouts.Close)
	up.interrupt(until)
	l.ground(up)
	switch loss.Cause {
	case LossClosed:
		up.closeWith(loss.echo, false)
	case LossProtocol:
		up.close(l.Policy.Rules[UpstreamProtocol].Upstream, "", false)
	case LossSilent, LossStalled, LossPanic:
		up.close(codeGoingAway, "", false)
	case LossBroken, LossMoved: // nobody to tell, or told already
	}
	if l.client.insideMessage() {
		l.End(End{Cause: UpstreamTorn, Err: loss})
		return nil
	}
	torn := l.Policy.Continuity != nil && up.begun()
	l.mu.Lock()
	fare := l.farewell
	torn = torn || l.torn || l.end != nil
	if fare == nil && !torn && l.Policy.Continuity != nil {
		l.upstream = nil
	}
	l.mu.Unlock()
	switch {
	case fare != nil: // the client has said its last word meanwhile
		l.End(fare.end)
		return nil
	case torn:
		l.End(End{Cause: ClientTorn, Err: loss})
		return nil
	case l.Policy.Continuity == nil:
		return loss
	}
	up.mu.Lock()
	owed, ok := up.pings.forget()
	owed = append([]byte(nil), owed...)
	up.mu.Unlock()
	l.client.mu.Lock()
	l.client.pings.forget()
	l.client.mu.Unlock()
	if ok {
		l.client.inject(frame.Pong, owed)
	}
	l.release(up, until)
	return loss
}
