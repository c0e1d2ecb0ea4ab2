package proxy

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// mover moves sessions on purpose: off targets that are drained or no
// longer configured, and between targets that are unevenly loaded. It is a
// control service.
type mover struct{ p *Proxy }

// String names the service.
func (m *mover) String() string { return "mover" }

// movePass is how long the mover works on what it has found before it looks
// again, and how often it looks when nothing has changed.
const movePass = time.Second

// Serve moves sessions until ctx ends.
func (m *mover) Serve(ctx context.Context) error {
	for {
		changed := m.p.pools.Changed()
		if m.pass(ctx) {
			continue // there is more to move
		}
		timer := time.NewTimer(movePass)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// pass works for up to movePass on every pool at once and reports whether
// any of them has more to move.
func (m *mover) pass(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, movePass)
	defer cancel()
	leaving := make(map[*upstream.Pool]map[*upstream.Target]bool)
	for _, t := range m.p.pools.Leaving() {
		// The sessions of a pool that is no longer configured stay where they
		// are: there is nowhere to go.
		if m.p.pools.Get(t.Pool().Name()) != t.Pool() {
			continue
		}
		if leaving[t.Pool()] == nil {
			leaving[t.Pool()] = make(map[*upstream.Target]bool)
		}
		leaving[t.Pool()][t] = true
	}
	var movers sync.WaitGroup
	for pool, targets := range leaving {
		if sessions := m.sessionsOn(targets); len(sessions) > 0 {
			movers.Go(func() { m.leave(ctx, pool, sessions) })
		}
	}
	for name := range m.p.Config().Upstreams {
		if pool := m.p.pools.Get(name); pool != nil && leaving[pool] == nil {
			if _, _, ok := pool.NextMove(m.underWay(pool)...); ok {
				movers.Go(func() { m.rebalance(ctx, pool) })
			}
		}
	}
	movers.Wait()
	return ctx.Err() == context.DeadlineExceeded
}

// sessionsOn returns the sessions with continuity on one of the targets.
func (m *mover) sessionsOn(targets map[*upstream.Target]bool) []*Session {
	var list []*Session
	for _, s := range m.p.registry.all() {
		if s.route.continuity != nil && s.State() == Open && targets[s.target.Load()] {
			list = append(list, s)
		}
	}
	return list
}

// leave moves sessions off their target at the pool's rate. Each takes a
// place in redial_rate before it leaves, so that its client is not held for
// that.
func (m *mover) leave(ctx context.Context, pool *upstream.Pool, sessions []*Session) {
	pace := newPace(pool.MoveRate())
	moved := 0
	for _, s := range sessions {
		// While there is nowhere to go, they are better off where they are.
		if !pace.wait(ctx) || !pool.Available() || pool.WaitRedial(ctx) != nil {
			break
		}
		s.move(nil)
		moved++
	}
	if moved == 0 {
		return
	}
	m.p.log.Info("sessions moved off leaving targets", zap.String("upstream", pool.Name()), zap.Int("sessions", moved))
}

// rebalance moves single sessions until the pool's counts differ by no more
// than rebalance.skew. An upstream may take its time to let a session go;
// what is under way is not moved again, nor another in its place.
func (m *mover) rebalance(ctx context.Context, pool *upstream.Pool) {
	_, rate := pool.Rebalance()
	pace := newPace(rate)
	for pace.wait(ctx) {
		from, to, ok := pool.NextMove(m.underWay(pool)...)
		if !ok {
			return
		}
		s := m.anyOn(from)
		if s == nil || pool.WaitRedial(ctx) != nil {
			return
		}
		s.move(to)
	}
}

// underWay returns the moves within a pool that have not arrived yet.
func (m *mover) underWay(pool *upstream.Pool) []upstream.Move {
	var moves []upstream.Move
	for _, s := range m.p.registry.all() {
		from, to := s.target.Load(), s.moveTo.Load()
		if to == nil || from == nil || to == from || from.Pool() != pool || s.State() == Closing {
			continue
		}
		if s.State() == HeldState {
			from = nil
		}
		moves = append(moves, upstream.Move{From: from, To: to})
	}
	return moves
}

// anyOn returns a session with continuity on the target, or nil.
func (m *mover) anyOn(t *upstream.Target) *Session {
	return m.p.registry.find(func(s *Session) bool {
		return s.route.continuity != nil && s.State() == Open && s.target.Load() == t && !s.prepaid.Load()
	})
}

// move leaves the session's upstream at a message boundary. To is where it
// should go, or nil for wherever the pool's balance says.
func (s *Session) move(to *upstream.Target) {
	s.moveTo.Store(to)
	s.prepaid.Store(true)
	if !s.link.Move() {
		s.prepaid.Store(false)
		s.moveTo.Store(nil)
	}
}

// CloseOn ends the sessions on a target that can't be moved off it.
func (p *Proxy) CloseOn(t *upstream.Target) {
	for _, s := range p.registry.all() {
		if s.route.continuity == nil && s.target.Load() == t {
			s.end(End{Cause: relay.Draining, Reason: "backend is draining"})
		}
	}
}

// pace spaces events evenly.
type pace struct {
	every time.Duration
	next  time.Time
}

func newPace(rate float64) *pace {
	return &pace{every: time.Duration(float64(time.Second) / rate), next: time.Now()}
}

// wait returns when the next event is due, or false when ctx ends before.
func (p *pace) wait(ctx context.Context) bool {
	now := time.Now()
	ok := sleep(ctx, p.next.Sub(now))
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(p.every)
	return ok
}
