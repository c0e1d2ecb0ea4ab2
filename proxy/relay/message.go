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
func (l *Link) message(from Side, frames []byte) error {
	f, s := &l.up, &l.scratch[from]
	if from == Upstream {
		f = &l.down
	}
	defer s.reset()
	data, err := f.decode(frames, &s.plain, &s.inflated)
	if err != nil {
		l.clientBroke(err) // too big or not UTF-8: the same for both sides
		return errOver
	}
	t := f.scan.Type()
	res, err := l.inspect(from, t, data)
	if err != nil {
		l.End(End{Cause: HandlerFailed, Err: err})
		return errOver
	}
	switch res.Verdict {
	case OK:
		// Both ends compress each message by itself, so that what came
		// compressed can go on as it came.
		if f.scan.Deflated() && !l.deflates(from.Other()) {
			return l.sendMessage(from, from.Other(), t, data)
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
func (l *Link) inspect(from Side, t frame.Opcode, data []byte) (res Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return l.Inspector.Inspect(from, t, data), nil
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
