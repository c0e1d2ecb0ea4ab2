package relay

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/stentproxy/stent/proxy/frame"
)

// message shows one whole message to the Inspector and carries out what it
// says. An error ends the reading of that side.
func (l *Link) message(from Side, frames []byte, t instant) error {
	if l.seat != nil && !(l.Inline && len(frames) <= maxInline) {
		return l.lookBeside(from, frames, t)
	}
	defer l.forget(from)
	v := l.look(from, frames, l.flowOf(from).content(), &l.scratch[from], l.seat != nil)
	if v.busy {
		return l.lookBeside(from, frames, t)
	}
	joins := l.passes(from, &v)
	if joins && l.extend(frames) {
		return nil
	}
	if err := l.flushRun(); err != nil {
		return err
	}
	if joins && l.join(from, frames, t) {
		return nil
	}
	l.flowOf(from).settle(t)
	return l.carryOut(from, frames, &v)
}

// lookBeside has a message looked at beside the loop, behind what is there
// to be written.
func (l *Link) lookBeside(from Side, frames []byte, t instant) error {
	if err := l.flushRun(); err != nil {
		return err
	}
	l.flowOf(from).settle(t)
	l.seat.dispatch(from, frames)
	return errRest
}

// passes reports whether a message goes on as it came. Both ends compress
// each message by itself, so that what came compressed can.
func (l *Link) passes(from Side, v *verdict) bool {
	return v.broken == nil && v.failed == nil && v.res.Verdict == OK && (!v.deflated || l.deflates(from.Other()))
}

// flowOf returns the flow of what a side sends.
func (l *Link) flowOf(from Side) *flow {
	if from == Client {
		return &l.up
	}
	return &l.down
}

// verdict is what became of looking at one message.
type verdict struct {
	content
	data   []byte // the message itself
	broken error  // it can't be read
	failed error  // the Inspector panicked
	busy   bool   // the Inspector would have had to wait
	res    Result
}

// look decodes a message and shows it to the Inspector; atOnce says that it
// must not wait for that.
func (l *Link) look(from Side, frames []byte, c content, s *scratch, atOnce bool) (v verdict) {
	v.content = c
	if v.data, v.broken = c.decode(frames, &s.plain, &s.inflated); v.broken == nil {
		l.inspect(from, &v, atOnce)
	}
	return v
}

// carryOut does what a message's verdict says.
func (l *Link) carryOut(from Side, frames []byte, v *verdict) error {
	switch {
	case v.broken != nil:
		l.clientBroke(v.broken) // too big or not UTF-8: the same for both sides
		return errOver
	case v.failed != nil:
		l.End(End{Cause: HandlerFailed, Err: v.failed})
		return errOver
	}
	res := &v.res
	switch res.Verdict {
	case OK:
		if !l.passes(from, v) {
			return l.sendMessage(from, from.Other(), v.kind, v.data)
		}
		return l.sendFrames(from, from.Other(), frames)
	case Forward:
		return l.sendMessage(from, from.Other(), res.Type, res.Data)
	case Reply:
		return l.sendMessage(from, from, res.Type, res.Data)
	case Stop:
		code := res.Code
		if code == 0 {
			code = codeNormal
		}
		if !Sends(code) {
			l.End(End{Cause: HandlerFailed, Err: fmt.Errorf("handler stopped with %d, which is never sent", code)})
			return errOver
		}
		l.End(End{Cause: HandlerStopped, Code: code, Reason: res.Reason})
		return errOver
	case Drop:
	}
	return nil
}

// codeNormal is the close code of a session that has done its work.
const codeNormal = 1000

// inspect calls the Inspector; its panic is an error.
func (l *Link) inspect(from Side, v *verdict, atOnce bool) {
	defer func() {
		if p := recover(); p != nil {
			v.failed = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if try, ok := l.Inspector.(TryInspector); ok && atOnce {
		var done bool
		v.res, done = try.TryInspect(from, v.kind, v.data)
		v.busy = !done
		return
	}
	v.res = l.Inspector.Inspect(from, v.kind, v.data)
}

// deflates reports whether messages to a side may be compressed.
func (l *Link) deflates(to Side) bool {
	leg := l.client
	if to == Upstream {
		leg = l.current()
	}
	return leg != nil && leg.deflate
}

// sendMessage sends a message of our own making in a message's place.
func (l *Link) sendMessage(from, to Side, t frame.Opcode, data []byte) error {
	buf := getBuffer(len(data) + frame.MaxHeader)
	defer buf.release()
	return l.sendFrames(from, to, encode(buf.b[:0], t, data, to == Upstream, l.deflates(to)))
}

// sendFrames sends one whole message to a side, on the goroutine that reads
// from.
func (l *Link) sendFrames(from, to Side, frames []byte) error {
	m := mark{len(frames), len(frames)}
	if from == Client && to == Upstream {
		return l.toUpstream(frames, m, false)
	}
	leg := l.client
	if to == Upstream {
		leg = l.current()
	}
	if leg == nil {
		return nil
	}
	if from == Upstream && to == Client {
		if l.toClient(l.running(), frames, m) {
			return nil
		}
		return errOver
	}
	// An answer to the side that is being read. Its reader finds out when
	// that side is gone.
	if _, err := leg.write(frames, m); errors.Is(err, os.ErrDeadlineExceeded) && to == Client {
		l.End(End{Cause: ClientStalled, Err: err})
		return errOver
	}
	if leg.backed() {
		leg.sock.answered = true
	}
	return nil
}

// inflateAll rewrites whole messages without compression, for an upstream
// that did not agree to it.
func inflateAll(frames []byte, limit int64) []byte {
	var plain, inflated gathered
	defer plain.reset()
	defer inflated.reset()
	var out []byte
	for len(frames) > 0 {
		n, h := firstMessage(frames)
		if n == 0 {
			return out
		}
		if h.Rsv&frame.Rsv1 == 0 {
			out = append(out, frames[:n]...)
		} else if inflate(&inflated, unmask(frames[:n], &plain), limit) == nil {
			out = appendFrame(out, h.Opcode, inflated.bytes(), true, 0)
			inflated.reset()
		}
		frames = frames[n:]
	}
	return out
}
