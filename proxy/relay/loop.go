package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// loopBuffer is what one read takes at the most, in bytes: little enough to
	// be in the nearest cache still when it is written.
	loopBuffer = 32 << 10
	// maxTurns is how often one socket is read before the next one's turn.
	maxTurns = 16
	// maxRounds is how many rounds a busy loop makes before it lets other
	// goroutines run.
	maxRounds = 16
)

// Loops drive the sessions whose connections are sockets, with TLS on the
// client's or without: one Loop per core, with the sessions spread over them.
type Loops struct {
	loops []*Loop
	crew  crew
	turn  atomic.Uint64
}

// Service is what supervises a Loop has to know of it.
type Service interface {
	Serve(ctx context.Context) error
	String() string
}

// NewLoops returns n loops, or nil where this system has none. Their
// Services have to be served.
func NewLoops(n int) *Loops {
	if !loopsWork || n <= 0 {
		return nil
	}
	ls := &Loops{crew: crew{limit: crewSize}}
	for i := range n {
		ls.loops = append(ls.loops, &Loop{name: fmt.Sprintf("loop %d", i), crew: &ls.crew})
	}
	return ls
}

// Services returns what is to be supervised. The loops have to outlive the
// sessions on them.
func (ls *Loops) Services() []Service {
	if ls == nil {
		return nil
	}
	list := []Service{&ls.crew}
	for _, p := range ls.loops {
		list = append(list, p)
	}
	return list
}

// Stalls returns how many rounds of the loops took too long, and how long
// all those took: sessions waited for the handlers of others.
func (ls *Loops) Stalls() (n uint64, took time.Duration) {
	if ls == nil {
		return 0, 0
	}
	for _, p := range ls.loops {
		n += p.stalls.Load()
		took += time.Duration(p.stalledFor.Load())
	}
	return n, took
}

// take gives a Link and its client's connection to a loop. It returns false,
// and has changed nothing, where the pump has to drive it.
func (ls *Loops) take(l *Link, conn net.Conn, early []byte) bool {
	if socket, _ := footed(conn); ls == nil || socket == nil || l.inflates() {
		return false
	}
	turn, n := ls.turn.Add(1), uint64(len(ls.loops))
	p, neighbour := ls.loops[turn%n], ls.loops[(turn+1)%n]
	if neighbour.sessions.Load() < p.sessions.Load() {
		p = neighbour
	}
	return p.take(l, conn, early)
}

// inflates reports whether the messages of a session that is about to start
// are compressed for handlers to read. That takes too long for a loop.
func (l *Link) inflates() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Deflate || l.Policy.Assemble && l.down.scan.Rsv != 0 || l.upstream != nil && l.upstream.deflate
}

// Loop drives sessions on one goroutine: it waits for all their sockets in
// an epoll set of its own, reads one, writes to its opposite, and goes on to
// the next. The set's descriptor waits in Go's own poller, so that an idle
// loop costs no thread.
type Loop struct {
	// static
	name string
	crew *crew

	sessions   atomic.Int64
	stalls     atomic.Uint64 // rounds that took too long
	stalledFor atomic.Int64  // nanoseconds of them
	asleep     atomic.Bool   // it has to be roused
	called     atomic.Bool   // queue is not empty

	mu sync.Mutex
	// guarded by mu
	queue   []*Link // to be looked at
	set     *epoll  // nil while it is not served
	stopped bool    // for good

	// owned by Serve
	buf    []byte
	sealed []byte // memory for what TLS writes
	now    instant
	// began is when the current round did; running says that the next one
	// follows it without a wait.
	began   instant
	running bool
	wheel   wheel
	alarm   instant // when the epoll set's file wakes us; 0 is never
	places  []place
	free    []uint32
	later   []*Link // that have had their turns
	spare   []*Link // the other queue
	run     run     // of the chunk that is being looked at
	doomed  []int   // descriptors that no event of this batch can mean any more
}

// place is a leg's number in the epoll set. Its generation tells events of
// the one that had the number before.
type place struct {
	leg *leg
	gen uint32
}

// String names the loop in the supervisor's log.
func (p *Loop) String() string { return p.name }

// Serve drives the loop's sessions until ctx ends. What is still on it then,
// or when it panics, is aborted.
func (p *Loop) Serve(ctx context.Context) error {
	set, err := newEpoll()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer set.close()
	p.begin(set)
	defer p.end(ctx)
	defer context.AfterFunc(ctx, p.rouse)()
	raw, err := set.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	spin := func(uintptr) bool { return p.spin(ctx) }
	for ctx.Err() == nil {
		if err := raw.Read(spin); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		p.tick()
	}
	return ctx.Err()
}

// begin readies the loop; Links may have been given to it before.
func (p *Loop) begin(set *epoll) {
	p.buf = make([]byte, loopBuffer)
	p.now = now()
	p.wheel = wheel{}
	p.wheel.init(p.now)
	p.alarm = 0
	p.places, p.free, p.later = make([]place, 1), nil, nil
	p.mu.Lock()
	p.set = set
	p.mu.Unlock()
}

// end aborts what is left.
func (p *Loop) end(ctx context.Context) {
	p.mu.Lock()
	left := p.queue
	p.queue, p.set = nil, nil
	p.called.Store(false)
	p.stopped = ctx.Err() != nil
	p.mu.Unlock()
	for _, place := range p.places {
		if place.leg != nil {
			left = append(left, place.leg.sock.link)
		}
	}
	for _, l := range left {
		l.seat.abandon(errLoopEnded)
	}
	p.bury()
}

var errLoopEnded = errors.New("its loop has ended")

// enqueue has a Link looked at soon. It returns false when the loop will
// never do that.
func (p *Loop) enqueue(l *Link) bool {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return false
	}
	p.queue = append(p.queue, l)
	p.called.Store(true)
	if p.asleep.Load() && p.asleep.Swap(false) && p.set != nil {
		p.set.rouse()
	}
	p.mu.Unlock()
	return true
}

// rouse interrupts the loop's wait.
func (p *Loop) rouse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set != nil {
		p.set.rouse()
	}
}

// spin handles what is there. It returns false when there is nothing more,
// so that Go's poller waits, and true when ctx has ended.
func (p *Loop) spin(ctx context.Context) bool {
	p.asleep.Store(false)
	for rounds, empty := 1, 0; ; rounds++ {
		if p.round() {
			empty = 0
			if rounds%maxRounds == 0 {
				runtime.Gosched()
				if ctx.Err() != nil {
					return true
				}
			}
			continue
		}
		if empty++; empty == 1 {
			runtime.Gosched() // whoever wrote to us may have more
			continue
		}
		if ctx.Err() != nil {
			return true
		}
		p.asleep.Store(true)
		if p.called.Load() {
			p.asleep.Store(false)
			continue
		}
		p.running = false
		return false
	}
}

// round handles one batch of events and all that waits beside them. It
// reports whether there was anything.
func (p *Loop) round() bool {
	events := p.set.poll()
	p.clock()
	for i := range events {
		if i%chimeEvery == chimeEvery-1 {
			p.chime() // a batch of slow ones does not hold timers up
		}
		e := &events[i]
		number, gen := e.place()
		if number == 0 {
			continue // we were roused
		}
		if pl := &p.places[number]; pl.leg != nil && pl.gen == gen {
			p.event(pl.leg, e.Events)
		}
	}
	busy := len(events) > 0
	if len(p.later) > 0 {
		busy = true
		later := p.later
		p.later = nil
		for _, l := range later {
			l.seat.again = false
			p.guard(l, (*seat).advance)
		}
	}
	if p.called.Load() {
		busy = true
		p.answer()
	}
	p.chime()
	p.bury()
	return busy
}

// chimeEvery is after how many events of a batch the timers are looked at.
const chimeEvery = 16

// chime handles the timers, if any has come up.
func (p *Loop) chime() {
	if p.alarm != 0 && now() >= p.alarm {
		p.tick()
	}
}

// stalled is how long a round may take before it counts as a stall: a
// handler blocks, or the machine is busy with other things.
const stalled = 20 * time.Millisecond

// clock takes the time for a round, and counts the one before if it stalled.
func (p *Loop) clock() {
	t := now()
	if p.running && t > p.began.add(stalled) {
		p.stalls.Add(1)
		p.stalledFor.Add(int64(t - p.began))
	}
	p.running, p.began, p.now = true, t, t
}

// event handles what one socket has to say.
func (p *Loop) event(g *leg, events uint32) {
	defer p.recovered(g.sock.link)
	g.sock.link.seat.event(g, events)
}

// guard calls a step of one Link; a panic in it ends that session alone.
func (p *Loop) guard(l *Link, step func(*seat)) {
	defer p.recovered(l)
	step(l.seat)
}

// recovered ends a session in whose step a panic came up.
func (p *Loop) recovered(l *Link) {
	if v := recover(); v != nil {
		p.run = run{}
		l.seat.crashed(fmt.Errorf("panic on %s: %v\n%s", p.name, v, debug.Stack()))
	}
}

// answer looks at the Links that were called.
func (p *Loop) answer() {
	p.mu.Lock()
	queue := p.queue
	p.queue, p.spare = p.spare[:0], nil
	p.called.Store(false)
	p.mu.Unlock()
	for i, l := range queue {
		queue[i] = nil
		l.seat.queued.Store(false)
		p.guard(l, (*seat).turn)
	}
	p.spare = queue[:0]
}

// tick handles the timers that have come up and sets the alarm for the next.
func (p *Loop) tick() {
	p.now = now()
	p.wheel.advance(p.now, func(l *Link) { p.guard(l, (*seat).turn) })
	p.alarm = 0
	p.wakeAt(p.wheel.next())
}

// arm has a Link looked at at the instant, or before.
func (p *Loop) arm(t *timer, at instant) {
	if at == 0 || t.armed() && t.due() <= at {
		return
	}
	if p.wheel.count == 0 {
		p.wheel.now = int64(p.now) / int64(tick)
	}
	p.wheel.set(t, at)
	if p.alarm == 0 || t.due() < p.alarm {
		p.wakeAt(t.due())
	}
}

func (p *Loop) wakeAt(at instant) {
	p.alarm = at
	if at == 0 {
		at = -1
	}
	p.set.alarm(at)
}

// enter gives a leg its place in the epoll set.
func (p *Loop) enter(g *leg) error {
	var number uint32
	if n := len(p.free); n > 0 {
		number, p.free = p.free[n-1], p.free[:n-1]
	} else {
		number = uint32(len(p.places))
		p.places = append(p.places, place{})
	}
	pl := &p.places[number]
	pl.gen++
	if err := p.set.add(g.sock.fd, number, pl.gen); err != nil {
		p.free = append(p.free, number)
		return fmt.Errorf("watch a socket: %w", err)
	}
	pl.leg = g
	g.sock.place = number
	return nil
}

// drop takes a leg out of the epoll set and closes its descriptor once this
// batch of events has been handled.
func (p *Loop) drop(g *leg) {
	s := g.sock
	if s.fd < 0 {
		return
	}
	if s.place != 0 {
		p.places[s.place].leg = nil
		p.free = append(p.free, s.place)
		s.place = 0
	}
	if s.abort {
		reset(s.fd)
	} else {
		g.notify()
	}
	s.tls = nil
	p.doomed = append(p.doomed, s.fd)
	s.fd = -1
	s.backlog.reset()
	g.carry.reset()
}

// bury closes the descriptors of legs that were dropped.
func (p *Loop) bury() {
	for _, fd := range p.doomed {
		closeSocket(fd)
	}
	p.doomed = p.doomed[:0]
}
