package relay

import (
	"sync/atomic"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// errOverLimit ends a session whose on_limit is close.
var errOverLimit = &frame.Error{Code: 1008, Reason: "rate limit"}

// flow is the state of one direction of a session, without I/O: bytes in,
// steps out. It decides what may go on as it stands, what has to wait until
// its message is whole, and what needs somebody's decision.
type flow struct {
	scan frame.Scanner
	// whole is the payload up to which messages are gathered; 0 passes every
	// byte on as it comes. Where messages are assembled all are gathered.
	whole    int64
	assemble bool
	limit    *limiter
	count    *Counters
	sizes    *Sizes
	last     *atomic.Int64 // instant of the last message, either way
	weight   *atomic.Int64 // of pend, for whoever weighs the session; nil: nobody does

	tally    tally
	pend     gathered // the start of a message that is not whole yet
	weighed  int64    // what weight was told of it
	cutting  bool     // the current message is too large to gather
	dropping bool     // the current message is over the rate
	paid     int64    // bytes of the current message that the rate has taken
	moved    bool     // this step has paid for some
	final    bool     // nothing is wanted behind the current message: it ends its step
	spent    bool     // pend was the last step's and is done with
	broken   bool     // the stream can't be read any more
}

// step is what flow.next found in a prefix of its input. At most one of
// control and message is set; out comes before it.
type step struct {
	n       int           // bytes consumed
	out     []byte        // goes on as it stands
	mark    mark          // the boundaries in out
	piece   bool          // out is a piece of one large message
	control []byte        // a whole control frame, as it came
	message []byte        // the frames of one whole message, as they came
	wait    time.Duration // the rate asks for a pause behind all this, which may be nothing
}

// gathers reports whether messages wait until they are whole.
func (f *flow) gathers() bool { return f.assemble || f.whole > 0 }

// next consumes a prefix of b at t. A step that consumed nothing asks for more
// bytes, or for a pause. An error is a *frame.Error and stands behind the step. The step's
// slices are valid until the next call and may lie in b.
//
// Whatever needs more than passing on (a control frame, a message under a
// rate, one too large to gather) stands at the start of a step, so next
// scans on only while it does not.
func (f *flow) next(b []byte, t instant) (step, error) {
	f.release()
	f.moved = false
	st := step{mark: noMark}
	pos, done := 0, 0 // b[:done] may go on, b[done:pos] is gathered
	for {
		before := f.scan
		ev, n, err := f.scan.Next(b[pos:])
		if err != nil || ev == frame.More {
			return f.rest(st, b, pos, done, t), err
		}
		large := f.large(ev, f.pend.len()+pos-done+n)
		if pos > 0 && (large || f.special(ev)) {
			f.scan = before
			return f.rest(st, b, pos, done, t), nil
		}
		if ev == frame.Control {
			st.control, st.n = b[:n], n
			return st, nil
		}
		if f.scan.First() {
			if f.limit != nil {
				if st.wait = f.limit.queue(t); st.wait > 0 {
					f.scan = before // its turn comes
					f.count.Limited.Add(1)
					return st, nil
				}
			}
			if err := f.admit(t); err != nil {
				st.n = pos + n
				return st, err
			}
		}
		if f.limit != nil {
			f.pay(t)
		}
		if ev == frame.Final {
			f.ended(t)
		}
		pos += n
		switch {
		case f.dropping:
			f.dropping = ev != frame.Final
			st.n = pos
			return st, nil
		case large && f.assemble:
			return st, frame.ErrTooBig
		case large:
			f.cutting = true
			if f.pend.len() > 0 {
				f.gather(b[:pos])
				f.spent = true
				st = f.rest(st, nil, 0, 0, t)
				st.out, st.n, st.piece = f.pend.bytes(), pos, true
				f.boundary(&st, len(st.out))
				f.cutting = ev != frame.Final
				return st, nil
			}
			fallthrough
		case f.cutting, !f.gathers():
			done = pos
			f.boundary(&st, pos)
			st.piece = f.cutting
			if f.cutting && ev == frame.Final {
				f.cutting = false
				return f.rest(st, b, pos, done, t), nil
			}
		case ev == frame.Final && f.pend.len() > 0:
			f.gather(b[:pos])
			f.spent = true
			f.complete(&st, f.pend.bytes(), pos, t)
			return st, nil
		case ev == frame.Final && f.assemble:
			f.complete(&st, b[:pos], pos, t)
			return st, nil
		case ev == frame.Final:
			done = pos
			st.mark = mark{pos, pos}
		}
		if ev == frame.Final && (f.limit != nil || f.final) {
			return f.rest(st, b, pos, done, t), nil
		}
	}
}

// special reports whether what the scanner found has to start a step.
func (f *flow) special(ev frame.Event) bool {
	return ev == frame.Control || f.limit != nil && f.scan.First()
}

// large reports whether the current message is too large to gather, now
// that wire bytes of it would be held. Fragments of a few bytes each, or of
// none, must not hold more memory than the messages they make.
func (f *flow) large(ev frame.Event, wire int) bool {
	switch {
	case ev == frame.Control || f.cutting || f.dropping:
		return false
	case f.assemble:
		return f.scan.Limit > 0 && int64(wire) > 2*f.scan.Limit+largeBuffer
	default:
		return f.whole > 0 && (f.scan.Size() > f.whole || int64(wire) > 2*f.whole+smallBuffer)
	}
}

// rest ends a step behind pos: b[:done] goes on, the start of a message
// behind it is gathered.
func (f *flow) rest(st step, b []byte, pos, done int, t instant) step {
	st.out, st.n = b[:done], pos
	f.gather(b[done:pos])
	if f.limit == nil || f.limit.onLimit != Slow {
		return st
	}
	switch {
	case f.scan.AtMessage():
		st.wait = f.limit.debt(t)
	case f.moved: // what came before has had its pause
		st.wait = f.limit.owed(t)
	}
	if st.wait > 0 {
		f.count.Limited.Add(1)
	}
	return st
}

// gather keeps the start of a message.
func (f *flow) gather(p []byte) {
	if len(p) > 0 {
		f.pend.append(p)
		f.weigh()
	}
}

// weigh makes the weight of what is gathered known where it is worth it:
// most messages are small, and come whole.
func (f *flow) weigh() {
	n := int64(f.pend.len())
	if n < smallBuffer {
		n = 0
	}
	if f.weight != nil && n != f.weighed {
		f.weighed = n
		f.weight.Store(n)
	}
}

// complete ends a step with one whole message.
func (f *flow) complete(st *step, frames []byte, n int, t instant) {
	*st = f.rest(*st, nil, 0, 0, t)
	st.n = n
	if f.assemble {
		st.message = frames
	} else {
		st.out, st.mark = frames, mark{len(frames), len(frames)}
	}
}

// boundary notes that the scanner stands behind n bytes of the step's out.
func (f *flow) boundary(st *step, n int) {
	if f.scan.AtFrame() {
		st.mark.frame = n
	}
	if f.scan.AtMessage() {
		st.mark.message = n
	}
}

// admit asks the rate for the message that just began.
func (f *flow) admit(t instant) error {
	if f.limit == nil {
		return nil
	}
	if f.limit.begin(t) {
		return nil
	}
	f.count.Limited.Add(1)
	if f.limit.onLimit == CloseSession {
		return errOverLimit
	}
	f.dropping = true
	return nil
}

// pay charges the rate with what has come of the current message.
func (f *flow) pay(t instant) {
	if f.dropping {
		return
	}
	if n := f.scan.Arrived() - f.paid; n > 0 {
		f.limit.pay(t, n)
		f.paid += n
		f.moved = true
	}
}

// ended counts the message that just became complete.
func (f *flow) ended(t instant) {
	size := f.scan.Size()
	if f.dropping {
		return
	}
	if f.limit != nil {
		f.limit.end(t)
		f.paid = 0
	}
	if f.scan.Type() == frame.Text {
		f.tally.text++
	} else {
		f.tally.binary++
	}
	f.tally.bytes += uint64(size)
	if f.sizes != nil {
		if b := sizeBucket(size); b != f.tally.bucket {
			if f.tally.run > 0 {
				f.sizes.Buckets[f.tally.bucket].Add(f.tally.run)
			}
			f.tally.bucket, f.tally.run = b, 0
		}
		f.tally.run++
	}
}

// release gives the memory of the last step back: a flow that waits holds
// only the start of a message.
func (f *flow) release() {
	if f.spent {
		f.pend.reset()
		f.spent = false
		f.weigh()
	}
}

// settle makes what was counted in a chunk that came at t known.
func (f *flow) settle(t instant) {
	if !f.tally.empty() {
		f.tally.settle(f.count, f.sizes)
		f.last.Store(int64(t))
	}
}

// reset forgets a stream that is gone, so that another can follow.
func (f *flow) reset() {
	f.pend.reset()
	f.weigh()
	f.spent, f.cutting, f.dropping, f.final, f.broken, f.paid = false, false, false, false, false, 0
	f.scan = frame.Scanner{Masked: f.scan.Masked, Rsv: f.scan.Rsv, Limit: f.scan.Limit}
}

// skip consumes frames unseen and reports whether a close frame is among
// them, and whether the stream can still be read.
func (f *flow) skip(b []byte) (rest []byte, closed, whole bool) {
	for !f.broken {
		ev, n, err := f.scan.Next(b)
		switch {
		case err != nil:
			f.broken = true
		case ev == frame.More:
			return b, false, true
		case ev == frame.Control && f.scan.Header().Opcode == frame.Close:
			return nil, true, true
		}
		b = b[n:]
	}
	return nil, false, false
}
