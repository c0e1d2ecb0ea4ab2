package relay

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy/frame"
)

// errOver stops a reader: the session's end is decided, or this side has
// nothing more to say.
var errOver = errors.New("over")

// serveClient reads the client until the session ends.
func (l *Link) serveClient() {
	defer close(l.clientDone)
	defer l.recovered(func(v any, stack []byte) {
		l.End(End{Cause: Failed, Err: fmt.Errorf("panic while reading the client: %v\n%s", v, stack)})
		l.client.conn.Close()
	})
	if err := l.readClient(); err != errOver {
		l.clientEnded(err)
	}
	l.hold.reset()
	l.up.pend.reset()
	l.forget(Client)
	l.drainClient()
}

// readClient moves the client's frames until it has nothing more to say.
func (l *Link) readClient() error {
	for {
		until, err := l.clientTick()
		if err != nil {
			return err
		}
		if l.full() {
			err = l.rest(until)
		} else {
			err = l.readClientUntil(until)
		}
		if err != nil && err != errWake {
			return err
		}
	}
}

// readClientUntil moves frames until something else is to be done.
func (l *Link) readClientUntil(until instant) error {
	for !l.full() {
		buf, n, err := l.client.read(until)
		if err != nil {
			return err
		}
		rest, err := l.fromClient(buf.b[:n])
		l.client.consumed(buf, rest)
		if err == errRest {
			l.client.fresh = len(rest) > 0
			err = l.pause(l.wait)
			l.client.heard.Store(int64(now()))
		}
		if err != nil {
			return err
		}
	}
	return errWake
}

// clientTick does what is due beside reading, and returns when to be woken
// for it again.
func (l *Link) clientTick() (instant, error) {
	select {
	case <-l.done:
		return 0, errOver
	default:
	}
	if up := l.current(); up != nil && up != l.fed {
		l.feed(up)
	}
	t := now()
	next, silent := l.client.keepalive(l.Policy.Keepalive, t)
	if silent {
		l.End(End{Cause: ClientSilent})
		return 0, errOver
	}
	if d := l.Policy.Timeouts.Idle; d > 0 {
		due := instant(l.last.Load()).add(d)
		if t >= due {
			l.End(End{Cause: Idle})
			return 0, errOver
		}
		next = earliest(next, due)
	}
	if d := l.Policy.Timeouts.Lifetime; d > 0 {
		due := l.opened.add(d)
		if t >= due {
			l.End(End{Cause: Lifetime})
			return 0, errOver
		}
		next = earliest(next, due)
	}
	if due := l.expiry; due != 0 {
		if t >= due {
			l.End(End{Cause: Expired})
			return 0, errOver
		}
		next = earliest(next, due)
	}
	return next, nil
}

// maxExpiry is the longest that an expiry is waited for.
const maxExpiry = 50 * 365 * 24 * time.Hour

// errRest stops a reader for a while: what it has is looked at again later.
var errRest = errors.New("resting")

// fromClient handles one chunk and returns its unconsumed rest.
func (l *Link) fromClient(b []byte) ([]byte, error) {
	t := instant(l.client.heard.Load())
	defer l.up.release()
	for len(b) > 0 {
		st, err := l.up.next(b, t)
		if st.message == nil {
			if err := l.flushRun(); err != nil {
				return b, err
			}
			l.up.settle(t)
		}
		if len(st.out) > 0 {
			if err := l.toUpstream(st.out, st.mark, st.piece); err != nil {
				return b[st.n:], err
			}
		}
		if st.message != nil {
			l.wait = st.wait // on a loop the client may rest for more than that
			if err := l.message(Client, st.message, t); err != nil {
				return b[st.n:], err
			}
		}
		if st.control != nil {
			if err := l.clientControl(st.control); err != nil {
				return b[st.n:], err
			}
		}
		if err != nil {
			l.clientBroke(err)
			if err != error(errOverLimit) {
				l.up.broken = true
			}
			return b[st.n:], errOver
		}
		if st.wait > 0 {
			l.wait = st.wait
			if err := l.flushRun(); err != nil {
				return b[st.n:], err
			}
			return b[st.n:], errRest
		}
		if st.n == 0 {
			return b, nil
		}
		b = b[st.n:]
		if l.seat != nil && l.clientRests() {
			if err := l.flushRun(); err != nil {
				return b, err
			}
			return b, errRest
		}
	}
	return nil, l.flushRun()
}

// pause stops reading while a rate is above its limit. A debt can be long:
// all else that the client's reader does goes on, and a client that is made
// to wait is not idle.
func (l *Link) pause(d time.Duration) error {
	over := now().add(d)
	for now() < over {
		l.last.Store(int64(now()))
		until, err := l.clientTick()
		if err != nil {
			return err
		}
		if err := l.rest(earliest(until, over)); err != nil {
			return err
		}
	}
	return nil
}

// clientControl acts on one control frame of the client.
func (l *Link) clientControl(raw []byte) error {
	c := parseControl(raw)
	switch c.op {
	case frame.Ping:
		l.Counters[Client].Pings.Add(1)
		if l.Policy.Assemble && !l.PassPings || !l.forwardPing(l.current(), raw, c.payload()) {
			l.client.inject(frame.Pong, c.payload())
		}
	case frame.Pong:
		l.pong(l.client, l.current(), raw, c.payload())
	case frame.Close:
		l.closed = true
		return l.clientClosed(c.payload())
	}
	return nil
}

// clientClosed hands the client's close frame on at once.
func (l *Link) clientClosed(payload []byte) error {
	code, reason, err := frame.ParseClose(payload)
	if err != nil {
		l.clientBroke(err)
		return errOver
	}
	if l.Policy.Assemble && !utf8.Valid(reason) {
		l.clientBroke(frame.ErrUTF8)
		return errOver
	}
	end := End{Cause: ClientClosed, Code: code, Reason: string(reason)}
	fare := &farewell{cause: ClientClosed, payload: append([]byte(nil), payload...)}
	l.leave(fare, end, func(up *leg) { up.closeWith(payload, false) })
	return errOver
}

// clientBroke ends the session of a client that broke a rule.
func (l *Link) clientBroke(err error) {
	cause, fe := Failed, (*frame.Error)(nil)
	if errors.As(err, &fe) {
		cause = causeOf(fe)
	}
	end := broke(cause, err)
	if cause != ClientProtocol {
		l.End(end)
		return
	}
	l.leave(&farewell{cause: cause}, end, func(up *leg) { up.close(l.Policy.Rules[cause].Upstream, "", false) })
}

// broke is the end of a session by something that can't be read, which says
// what: text that is none, or data that can't be inflated.
func broke(cause Cause, err error) End {
	end := End{Cause: cause, Err: err}
	if fe := (*frame.Error)(nil); cause == InvalidText && errors.As(err, &fe) {
		end.Reason = fe.Reason
	}
	return end
}

// causeOf maps a break to its row of the close table.
func causeOf(err *frame.Error) Cause {
	switch err.Code {
	case frame.CodeTooBig:
		return TooBig
	case frame.CodeInvalid:
		return InvalidText
	case errOverLimit.Code:
		return OverLimit
	default:
		return ClientProtocol
	}
}

// clientEnded is called when the client's connection has ended without a
// close frame. A client that only stopped sending still gets what the
// upstream answers.
func (l *Link) clientEnded(err error) {
	end := End{Cause: ClientGone, Err: err}
	if !errors.Is(err, io.EOF) {
		l.End(end)
		return
	}
	l.leave(&farewell{cause: ClientGone}, end, func(up *leg) {
		up.close(codeGoingAway, "", false)
		if !up.atBoundary() {
			up.closeWrite() // the rest of a frame never comes
		}
	})
}

// leave begins a farewell: the upstream is told, and Run relays what it
// still says. Without an upstream the session ends at once.
func (l *Link) leave(fare *farewell, end End, tell func(*leg)) {
	fare.end = end
	var up *leg
	for tried := up; ; {
		l.mu.Lock()
		up = l.upstream
		if up == nil || up.failed || l.end != nil {
			if l.farewell == nil {
				l.farewell = fare
			}
			l.mu.Unlock()
			l.End(end)
			return
		}
		if up == l.fed || up == tried {
			break
		}
		l.mu.Unlock()
		tried = up
		if l.current() == up {
			l.feed(up) // it is new, and what is held comes before the last word
		}
	}
	fare.until = now().add(l.Policy.Timeouts.Close)
	l.farewell = fare
	l.mu.Unlock()
	up.hurry(fare.until)
	l.client.hurry(fare.until)
	tell(up)
	up.wake()
}

// drainClient waits until the close frames are out and then reads the
// client to its own, so that closing the socket does not reset what it has
// not read yet.
func (l *Link) drainClient() {
	<-l.ending
	l.mu.Lock()
	end, closeBy, fare := l.end, l.closeBy, l.farewell
	l.mu.Unlock()
	if l.closed || fare != nil && fare.cause != ClientProtocol {
		return // it has said its last word
	}
	switch end.Cause {
	case ClientSilent, ClientStalled, ClientGone:
		return // there is nobody to wait for
	}
	l.client.fresh = l.client.carry.len() > 0 // it may be there already
	parse := end.Cause != ClientProtocol
	for now() < closeBy {
		buf, n, err := l.client.read(closeBy)
		if err == errWake {
			continue
		}
		if err != nil {
			return
		}
		rest, closed := buf.b[:n], false
		if parse {
			rest, closed, parse = l.up.skip(rest)
		} else {
			rest = nil
		}
		l.client.consumed(buf, rest)
		if closed {
			return
		}
	}
}
