package relay

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// maxInline is the largest message, in bytes of its frames, that an
// Inspector looks at on a loop.
const maxInline = 64 << 10

// crewSize is how many messages can be looked at beside the loops at once.
const crewSize = 256

// job is one message that is looked at beside the loop, while its sender
// rests.
type job struct {
	link   *Link
	from   Side
	frames gathered
	content
	scratch scratch
	result  verdict
	done    atomic.Bool
}

// dispatch has a message looked at beside the loop.
func (st *seat) dispatch(from Side, frames []byte) {
	j := &job{link: st.link, from: from, content: st.link.flowOf(from).content()}
	j.frames.append(frames)
	st.jobs[from] = j
	st.loop.crew.add(j)
}

func (j *job) run() {
	defer j.link.strays.Done()
	j.look()
	j.done.Store(true)
	j.link.post()
}

// look does the work of a job; a panic in it ends the session alone.
func (j *job) look() {
	defer j.link.recovered(func(v any, stack []byte) {
		j.result = verdict{failed: fmt.Errorf("panic while looking at a message: %v\n%s", v, stack)}
	})
	j.result = j.link.look(j.from, j.frames.bytes(), j.content, &j.scratch, false)
	if r := &j.result.res; r.Verdict == Forward || r.Verdict == Reply {
		r.Data = bytes.Clone(r.Data) // the Inspector's until its next call
	}
}

// conclude carries out what was found of messages that were dispatched. A
// client's waits, as those behind it do, until the upstream has taken what went
// before: with a handler's answers between what is held, nobody could tell how
// much of that was taken.
func (st *seat) conclude() {
	l := st.link
	for _, from := range []Side{Client, Upstream} {
		j := st.jobs[from]
		if j == nil || !j.done.Load() || from == Client && st.behind() {
			continue
		}
		st.jobs[from] = nil
		err := l.carryOut(from, j.frames.bytes(), &j.result)
		j.frames.reset()
		j.scratch.reset()
		switch {
		case err == nil:
		case from == Client:
			st.clientStops(err)
		case st.upstream != nil && l.ended():
			st.upstreamStops(nil)
		}
	}
}

// crew looks at the messages that could hold a loop up: as many at once as
// its limit. Each session has one for each direction at the most, so that
// what waits is bounded.
type crew struct {
	limit int

	mu sync.Mutex
	// guarded by mu
	waiting []*job
	working int
	joined  sync.WaitGroup
	stopped bool
}

// String names the crew in the supervisor's log.
func (c *crew) String() string { return "loop handlers" }

// Serve joins the crew when ctx ends.
func (c *crew) Serve(ctx context.Context) error {
	<-ctx.Done()
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.joined.Wait()
	return ctx.Err()
}

func (c *crew) add(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return // its session is being aborted
	}
	j.link.strays.Add(1) // no session is over while its Inspector is called
	c.waiting = append(c.waiting, j)
	if c.working < c.limit {
		c.working++
		c.joined.Go(c.work)
	}
}

// work looks at what waits until nothing does.
func (c *crew) work() {
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.working--
			c.waiting = nil
			c.mu.Unlock()
			return
		}
		j := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		j.run()
	}
}
