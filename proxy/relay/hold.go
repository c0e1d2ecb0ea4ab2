package relay

import (
	"errors"
	"os"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// current returns the upstream that client data goes to, or nil.
func (l *Link) current() *leg {
	if l.seat != nil {
		return l.seat.current()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.upstream == nil || l.upstream.failed {
		return nil
	}
	return l.upstream
}

// toUpstream hands client data on, or holds it where there is no upstream.
// It is either whole messages or a piece of one too large to be gathered.
func (l *Link) toUpstream(p []byte, m mark, piece bool) error {
	if l.Alone {
		return nil
	}
	for {
		up := l.current()
		if l.begun != nil && l.begun != up {
			l.tear(l.begun)
			return nil
		}
		if up != nil && up != l.fed && !l.feed(up) {
			if up != l.current() {
				continue
			}
			up = nil // its greeting is not answered yet
		}
		if up == nil {
			return l.keep(p, m)
		}
		n, err := up.write(p, m)
		if err == nil && n < len(p) {
			l.lift(up, p, m, n, piece)
			return nil
		}
		if err == nil {
			l.began(up, m.message != len(p))
			l.handedOver(p)
			return nil
		}
		l.upstreamRefused(up, err)
		if l.Policy.Continuity == nil {
			return nil // Run finds out how the upstream ended
		}
		if piece {
			if l.begun != nil || n > 0 {
				l.tear(up)
				return nil
			}
			continue
		}
		taken, _ := wholeMessages(p, n)
		l.handedOver(p[:taken])
		p, m = p[taken:], m.after(taken)
		if len(p) == 0 {
			return nil
		}
	}
}

// began notes whether an upstream has the start of a message whose rest no
// other can be given.
func (l *Link) began(up *leg, inside bool) {
	l.begun = nil
	if inside && l.Policy.Continuity != nil {
		l.begun = up
	}
}

// upstreamRefused notes that an upstream takes no more. It may have said
// why before: Run reads it to its end before it acts on that.
func (l *Link) upstreamRefused(up *leg, err error) {
	l.mu.Lock()
	up.failed = true
	if !errors.Is(err, errClosed) {
		up.stuck = errors.Is(err, os.ErrDeadlineExceeded)
		l.readOn(up, now())
	}
	l.mu.Unlock()
	up.wake()
}

// tear notes that an upstream was lost with a part of a message that can't
// be sent again. It ends the session once that upstream has been read.
func (l *Link) tear(up *leg) {
	l.mu.Lock()
	l.torn = true
	reading := l.upstream == up
	l.mu.Unlock()
	if !reading {
		l.End(End{Cause: ClientTorn})
	}
}

// keep holds what no upstream has taken. What is in hand is always kept;
// the buffer's bound is where reading stops.
func (l *Link) keep(p []byte, m mark) error {
	c := l.Policy.Continuity
	if c == nil {
		return nil
	}
	if c.CloseWhenFull && l.hold.len()+len(p) > c.Buffer {
		l.End(End{Cause: GaveUp, Err: errHoldFull})
		return errOver
	}
	l.holdMore(p, m)
	return nil
}

func (l *Link) holdMore(p []byte, m mark) {
	at := l.hold.len()
	l.hold.append(p)
	l.holdEnd = noMark
	if m.frame >= 0 {
		l.holdEnd.frame = at + m.frame
	}
	if m.message >= 0 {
		l.holdEnd.message = at + m.message
	}
	l.held.Store(int64(l.hold.len()))
}

var errHoldFull = errors.New("continuity buffer is full")

// full reports whether the client has to wait before it is read further.
// Where a full buffer ends the session it never has: what does not fit has to
// be read to be known.
func (l *Link) full() bool {
	c := l.Policy.Continuity
	return l.hold.len() > 0 && l.hold.len() >= c.Buffer && !c.CloseWhenFull
}

// resetCheck is how often a client that is not read is looked at: it may
// have reset its connection.
const resetCheck = time.Second

// rest waits, until the instant at most, while the hold buffer is full or a
// rate is passed. The client is not read, so its keepalive pauses.
func (l *Link) rest(until instant) error {
	l.client.heard.Store(int64(now()))
	wait := resetCheck
	if until != 0 {
		wait = max(0, min(wait, time.Duration(until-now())))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-l.client.kick:
	case <-timer.C:
	case <-l.done:
		return errOver
	}
	if l.client.reset() {
		return errReset
	}
	return nil
}

var errReset = errors.New("connection reset")

// feed brings a new upstream to where the one before it was: what is to be
// repeated, then what no upstream has taken yet. It returns false when that
// upstream, too, refuses, or has to answer first.
func (l *Link) feed(up *leg) bool {
	if l.begun != nil {
		l.tear(l.begun) // the rest of that message is nobody's
		return false
	}
	if (l.fed != nil || l.Replayer != nil) && !l.repeat(up) {
		return false
	}
	if l.Policy.Assemble && !up.deflate && l.hold.len() > 0 {
		plain := inflateAll(l.hold.bytes(), l.Policy.MessageSize)
		l.hold.reset()
		l.hold.append(plain)
		l.holdEnd = mark{len(plain), len(plain)}
	}
	held := l.hold.bytes()
	n, err := up.write(held, l.holdEnd)
	if err == nil && n < len(held) {
		l.fed = up
		l.lift(up, nil, l.holdEnd, n, false)
		l.unpark(up)
		return true
	}
	if err == nil {
		l.fed = up
		l.began(up, len(held) > 0 && l.holdEnd.message != len(held))
		l.handedOver(held)
		l.hold.reset()
		l.held.Store(0)
		l.unpark(up)
		return true
	}
	l.upstreamRefused(up, err)
	taken, whole := wholeMessages(held, n)
	l.handedOver(held[:taken])
	if taken > 0 {
		l.fed = up // it has something that the next one has not
	}
	if n > taken && !whole {
		l.tear(up)
	}
	l.hold.drop(taken)
	l.holdEnd = l.holdEnd.after(taken)
	l.held.Store(int64(l.hold.len()))
	return false
}

// repeat sends an upstream what is to be repeated.
func (l *Link) repeat(up *leg) bool {
	var again []byte
	switch {
	case l.Replayer != nil:
		if l.greeted != up {
			if !l.say(up, encodeAll(l.Replayer.Greet(), up)) {
				return false
			}
			l.greeted = up
		}
		if !l.Replayer.Ready() {
			return false
		}
		again = encodeAll(l.Replayer.Replay(), up)
	case l.replay == nil:
	case l.Policy.Assemble && !up.deflate:
		again = inflateAll(l.replay.frames, l.Policy.MessageSize)
	default:
		again = l.replay.frames
	}
	return l.say(up, again)
}

// say sends whole messages that are not the client's own now.
func (l *Link) say(up *leg, frames []byte) bool {
	if len(frames) == 0 {
		return true
	}
	if _, err := up.write(frames, mark{len(frames), len(frames)}); err != nil {
		l.upstreamRefused(up, err)
		return false
	}
	return true
}

func encodeAll(messages []Recorded, up *leg) []byte {
	var out []byte
	for _, m := range messages {
		out = encode(out, m.Type, m.Data, true, up.deflate)
	}
	return out
}

// handedOver is told of whole messages that an upstream's socket has taken:
// from now on they are never sent again, unless they are replayed.
func (l *Link) handedOver(p []byte) {
	if len(p) == 0 {
		return
	}
	l.replay.record(p)
	if l.Replayer == nil {
		return
	}
	for len(p) > 0 {
		n, h := firstMessage(p)
		if n == 0 {
			return
		}
		s := &l.scratch[Client]
		data := unmask(p[:n], &s.replay)
		if h.Rsv&frame.Rsv1 != 0 {
			if inflate(&s.inflated, data, l.Policy.MessageSize) != nil {
				return
			}
			data = s.inflated.bytes()
		}
		l.Replayer.HandedOver(h.Opcode, data)
		s.inflated.reset()
		p = p[n:]
	}
}

// recorder keeps the frames of a session's first messages.
type recorder struct {
	left   int // messages still to be recorded
	room   int // bytes still to be filled
	frames []byte
}

func (r *recorder) record(p []byte) {
	if r == nil {
		return
	}
	for r.left > 0 && len(p) > 0 {
		n, _ := firstMessage(p)
		if n == 0 || n > r.room {
			r.left = 0 // a later message without this one would mean something else
			return
		}
		r.frames = append(r.frames, p[:n]...)
		r.left--
		r.room -= n
		p = p[n:]
	}
}

// firstMessage returns the length of the first whole message in p, which
// begins at a message's start, and its first header. It is 0 when the
// message is not whole.
func firstMessage(p []byte) (int, frame.Header) {
	var first frame.Header
	for at := 0; ; {
		h, n, err := frame.ParseHeader(p[at:])
		if err != nil || n == 0 || int64(len(p)-at-n) < h.Length {
			return 0, first
		}
		if at == 0 {
			first = h
		}
		at += n + int(h.Length)
		if h.Fin {
			return at, first
		}
	}
}

// wholeMessages returns where the last message ends that lies within the
// first n bytes of p, which begins at a message's start, and whether the
// one behind it is whole in p.
func wholeMessages(p []byte, n int) (end int, whole bool) {
	for {
		k, _ := firstMessage(p[end:])
		if k == 0 || end+k > n {
			return end, k > 0
		}
		end += k
	}
}
