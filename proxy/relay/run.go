package relay

// run is whole messages next to each other in one chunk that go on as they
// came: a loop writes them together, since a write costs more than anything
// else that is done for a message.
type run struct {
	from   Side
	frames []byte
	at     instant // when the chunk came
}

// extend adds a message that lies right behind the run.
func (l *Link) extend(frames []byte) bool {
	if l.seat == nil {
		return false
	}
	r := &l.seat.loop.run
	n := len(r.frames)
	if n == 0 || cap(r.frames) < n+len(frames) || &r.frames[:n+1][n] != &frames[0] {
		return false
	}
	r.frames = r.frames[:n+len(frames)]
	return true
}

// join begins a run. It returns false where the message has to be written by
// itself: something waits that goes first, or, on the pump, could overtake.
func (l *Link) join(from Side, frames []byte, t instant) bool {
	if l.seat == nil || l.Replayer != nil || l.flowOf(from).spent {
		return false
	}
	to := l.client
	if from == Client {
		to = l.current()
	}
	if to == nil || to.pending.Load() {
		return false
	}
	l.seat.loop.run = run{from, frames, t}
	return true
}

// flushRun writes the run, before anything else is done. What has begun to
// wait for a boundary meanwhile goes behind it.
func (l *Link) flushRun() error {
	if l.seat == nil || len(l.seat.loop.run.frames) == 0 {
		return nil
	}
	r := l.seat.loop.run
	l.seat.loop.run.frames = nil
	l.flowOf(r.from).settle(r.at)
	to := l.client
	if r.from == Client {
		to = l.current()
	}
	if to != nil {
		to.late = true
		defer func() { to.late = false }()
	}
	return l.sendFrames(r.from, r.from.Other(), r.frames)
}
