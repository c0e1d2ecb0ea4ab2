package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// connecting is how many handshakes are made at the same time before
	// the measured time.
	connecting = 64
	// drainTimeout is how long echoes are waited for that are due when the
	// measured time is over; interrupted, where it was cut short.
	drainTimeout       = 5 * time.Second
	interruptedTimeout = 500 * time.Millisecond

	progressEvery = 250 * time.Millisecond
)

// Errors that count messages, not connections.
var (
	errUnanswered = errors.New("message unanswered")
	errTooFast    = errors.New("message not sent: the rate is more than the generator can send")
)

// round is one target under load, once.
type round struct {
	Config
	dialer   *dialer
	message  *message
	process  watched
	progress func(Phase, time.Duration, time.Duration, int64)

	epoch    time.Time
	from, to atomic.Int64 // the measured time, in nanoseconds since epoch; set before there is load
	stopped  atomic.Bool  // no message any more, and ends are no faults
	clients  []*client
	alive    atomic.Int64
	dead     chan struct{} // closed when no connection is left
	work     sync.WaitGroup
	paced    chan struct{}      // closed when all that was due is posted, under rate
	kill     context.CancelFunc // of sessions that take too long, under churn
	echoes   *recorder
	faults   faults

	mu      sync.Mutex
	connect *hdrhistogram.Histogram // handshakes, from connect to 101
	lag     *hdrhistogram.Histogram
}

// result is what a round has measured.
type result struct {
	seconds       float64
	count         int64
	echoes        *hdrhistogram.Histogram
	connect       *hdrhistogram.Histogram
	lag           *hdrhistogram.Histogram
	cpu, own      float64 // seconds, of the process and of this one
	memory        float64 // bytes per connection
	alive, opened int64
	faults        map[string]int64
}

func newRound(cfg Config, d *dialer, m *message, process watched, progress func(Phase, time.Duration, time.Duration, int64)) *round {
	return &round{
		Config: cfg, dialer: d, message: m, process: process, progress: progress,
		epoch: time.Now(), dead: make(chan struct{}), echoes: newRecorder(), connect: newHistogram(), lag: newHistogram(),
	}
}

// now is the time since epoch, in nanoseconds.
func (r *round) now() int64 { return int64(time.Since(r.epoch)) }

// run measures once. It fails where the connections can't be opened; what
// goes wrong later is counted. A context that ends cuts it short.
func (r *round) run(ctx context.Context) (result, error) {
	var res result
	before := r.process.memory()
	if err := r.begin(ctx); err != nil {
		return res, err
	}
	defer r.leave()
	r.wait(ctx, Warming, r.from.Load())
	begun := r.now()
	cpu, own := r.process.cpu(), ownCPU()
	r.wait(ctx, Measuring, r.to.Load())
	ended := r.now()
	r.cut(ended)
	from, to := r.from.Load(), r.to.Load()
	res.seconds = float64(to-from) / 1e9
	// The CPU is looked at a little late, at both ends.
	part := float64(to-from) / float64(max(ended-begun, 1))
	res.cpu, res.own = (r.process.cpu()-cpu)*part, (ownCPU()-own)*part
	if r.Mode == Rate {
		<-r.paced // it may be behind, with messages that were due before
	}
	if r.Mode == Idle {
		after := r.process.memory()
		res.memory = (float64(after) - float64(before)) / float64(len(r.clients))
		r.prove()
	}
	r.stopped.Store(true)
	if r.Mode == Churn {
		r.end(ctx)
	} else {
		r.drain(ctx)
	}
	res.echoes, res.count = r.echoes.total()
	res.alive, res.opened = r.alive.Load(), int64(len(r.clients))
	r.mu.Lock()
	defer r.mu.Unlock()
	res.connect, res.lag, res.faults = r.connect, r.lag, r.faults.all()
	return res, nil
}

// begin puts the target under load.
func (r *round) begin(ctx context.Context) error {
	if r.Mode != Churn {
		if err := r.open(ctx); err != nil {
			return err
		}
	}
	r.schedule()
	switch r.Mode {
	case Echo, Bulk:
		now := r.now()
		for _, c := range r.clients {
			c.post(r.InFlight, now) // an error shows in the reader
		}
	case Rate:
		r.paced = make(chan struct{})
		r.work.Go(func() { r.pace(ctx) })
	case Churn:
		r.churn(ctx)
	case Idle:
	}
	return nil
}

// schedule sets the measured time beforehand, so that no message can be due
// in it and not be counted.
func (r *round) schedule() {
	from := r.now()
	if r.Mode != Idle {
		from += int64(r.Warmup)
	}
	r.from.Store(from)
	r.to.Store(from + int64(r.Duration))
}

// cut ends the measured time now, where that is before it is over.
func (r *round) cut(now int64) {
	r.to.Store(min(r.to.Load(), max(now, r.from.Load())))
}

// open opens the connections and starts what reads and writes them. Idle
// ones prove by an echo that they are more than an answer with 101.
func (r *round) open(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.clients = make([]*client, r.Connections)
	var next, up atomic.Int64
	var dialers sync.WaitGroup
	for range min(connecting, r.Connections) {
		dialers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= r.Connections {
					return
				}
				c, err := r.dial(ctx, uint32(i), r.InFlight)
				if err == nil && r.Mode == Idle {
					if err = c.echo(r.now(), r.patience); err != nil {
						c.conn.Close()
						err = fmt.Errorf("the first echo: %w", err)
					}
				}
				if err != nil {
					cancel(fmt.Errorf("open connection %d: %w", i+1, err))
					return
				}
				r.clients[i] = c
				up.Add(1)
			}
		})
	}
	opened := make(chan struct{})
	go func() { dialers.Wait(); close(opened) }()
	r.watch(opened, func(elapsed time.Duration) { r.progress(Connecting, elapsed, 0, up.Load()) })
	if err := context.Cause(ctx); err != nil {
		for _, c := range r.clients {
			if c != nil {
				c.conn.Close()
			}
		}
		return err
	}
	r.alive.Store(int64(len(r.clients)))
	for _, c := range r.clients {
		r.work.Go(func() { r.read(c) })
		r.work.Go(func() { c.send(r.dead) })
	}
	return nil
}

// watch calls report now and then until done is closed.
func (r *round) watch(done <-chan struct{}, report func(elapsed time.Duration)) {
	begun := time.Now()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			report(time.Since(begun))
		}
	}
}

// dial opens one connection.
func (r *round) dial(ctx context.Context, id uint32, inFlight int) (*client, error) {
	begun := time.Now()
	conn, rest, err := r.dialer.dial(ctx)
	if err != nil {
		return nil, err
	}
	taken := time.Since(begun)
	r.mu.Lock()
	record(r.connect, int64(taken))
	r.mu.Unlock()
	return newClient(conn, rest, r.message, id, inFlight), nil
}

// read reads one connection to its end.
func (r *round) read(c *client) {
	defer func() {
		c.over.Store(true)
		if r.alive.Add(-1) == 0 {
			close(r.dead)
		}
	}()
	again := r.Mode == Echo || r.Mode == Bulk
	for {
		times, err := c.receive()
		now := r.now()
		r.answered(c.id, times, now)
		if err == nil && again && len(times) > 0 && !r.stopped.Load() {
			err = c.post(len(times), now)
		}
		if err == nil {
			continue
		}
		if !r.stopped.Load() {
			r.faults.add(err, 1)
			c.conn.Close()
		}
		return
	}
}

// answered records echoes: the latency of those that were due in the
// measured time, and the number of those that came in it.
func (r *round) answered(id uint32, due []int64, now int64) {
	if len(due) == 0 {
		return
	}
	from, to := r.from.Load(), r.to.Load()
	if now < from {
		return
	}
	s := &r.echoes.shards[id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range due {
		if t >= from && t < to {
			record(s.h, now-t)
		}
	}
	if now < to {
		s.count += int64(len(due))
	}
}

// pace sends at the rate, in turn over the connections, all that is due
// until the measured time is over.
func (r *round) pace(ctx context.Context) {
	defer close(r.paced)
	pace(r.epoch, time.Now(), r.Rate, func(n int, due int64) bool {
		to := r.to.Load()
		if due >= to {
			return false
		}
		if r.now() > to+int64(r.grace(ctx)) {
			r.faults.add(errTooFast, 1+int64(float64(to-due)/1e9*r.Rate))
			return false
		}
		if err := r.clients[n%len(r.clients)].post(1, due); err != nil && due >= r.from.Load() {
			r.faults.add(fmt.Errorf("message not sent: %s", kindOf(err)), 1)
		}
		return true
	}, func(due int64) bool { return due < r.to.Load() }, func(ns int64) {
		if now := r.now(); now >= r.from.Load() {
			r.mu.Lock()
			record(r.lag, ns)
			r.mu.Unlock()
		}
	})
}

// prove has each connection that idled echo once more.
func (r *round) prove() {
	now := r.now()
	for _, c := range r.clients {
		c.post(1, now)
	}
}

// wait returns at a time, or when ctx ends or no connection is left.
func (r *round) wait(ctx context.Context, phase Phase, until int64) {
	d := time.Duration(until - r.now())
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	begun := time.Now()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.dead:
			return
		case <-ticker.C:
			r.progress(phase, time.Since(begun), d.Round(time.Millisecond), r.echoes.count())
		}
	}
}

// grace is how long what is due is waited for.
func (r *round) grace(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return r.hurry
	}
	return r.patience
}

// drain waits for the echoes that are due. What does not come is recorded
// with the time that it was waited for: left out, it would make a server
// that stalls look good.
func (r *round) drain(ctx context.Context) {
	for begun := time.Now(); r.owed() && time.Since(begun) < r.grace(ctx); {
		time.Sleep(time.Millisecond)
	}
	now := r.now()
	for _, c := range r.clients {
		for _, due := range c.pending() {
			if r.Mode == Idle {
				r.faults.add(errUnanswered, 1)
			} else {
				r.missed(c.id, due, now, errUnanswered)
			}
		}
	}
}

// missed counts what was due in the measured time and did not come.
func (r *round) missed(id uint32, due, now int64, err error) {
	if due < r.from.Load() || due >= r.to.Load() {
		return
	}
	r.faults.add(err, 1)
	s := &r.echoes.shards[id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	record(s.h, now-due)
}

// owed reports whether an echo is due on a connection that is alive.
func (r *round) owed() bool {
	for _, c := range r.clients {
		if !c.over.Load() && c.owes() {
			return true
		}
	}
	return false
}

// leave closes the connections, and returns when all that served them has.
func (r *round) leave() {
	r.stopped.Store(true)
	for _, c := range r.clients {
		c.goodbye()
	}
	r.work.Wait()
	for _, c := range r.clients {
		c.conn.Close()
	}
}

// churn starts workers that open, use and close one session after another,
// until the round is stopped.
func (r *round) churn(ctx context.Context) {
	// Sessions that are under way when ctx ends may end well.
	ctx, r.kill = context.WithCancel(context.WithoutCancel(ctx))
	for i := range r.Connections {
		id := uint32(i)
		r.work.Go(func() {
			for !r.stopped.Load() {
				due := r.now()
				err := r.session(ctx, id, due)
				switch now := r.now(); {
				case err == nil:
					r.answered(id, []int64{due}, now)
				case now >= r.to.Load():
					r.missed(id, due, now, err)
				default:
					r.faults.add(err, 1)
					pause(ctx, failurePause)
				}
			}
		})
	}
}

// end waits for churn's workers, whose sessions are killed when they take
// too long.
func (r *round) end(ctx context.Context) {
	timer := time.AfterFunc(r.grace(ctx), r.kill)
	defer timer.Stop()
	defer r.kill()
	r.work.Wait()
}

// failurePause keeps a worker from spinning on a target that refuses.
const failurePause = 20 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// session is one of churn's: connect, upgrade, one echo, a closing
// handshake.
func (r *round) session(ctx context.Context, id uint32, due int64) error {
	c, err := r.dial(ctx, id, 1)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	if err := c.echo(due, r.patience); err != nil {
		return err
	}
	return c.leave(r.patience)
}
