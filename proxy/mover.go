package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// mover moves sessions on purpose: off targets that are drained or no
// longer configured, and between targets that are unevenly loaded. It is a
// control service.
type mover struct {
	p *Proxy
	// pools is what is kept of each pool from one pass to the next.
	pools map[*upstream.Pool]*moves
}

// moves is how the sessions of one pool are moved.
type moves struct {
	leave, rebalance pace
	departures
	stays bool // the log knows that sessions stay on their leaving target
}

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

// pass works on every pool at once, for up to movePass from when one of its
// targets is known to take sessions, and reports whether any of them has more
// to move.
func (m *mover) pass(ctx context.Context) bool {
	leaving := make(map[*upstream.Pool]bool)
	for _, t := range m.p.pools.Leaving() {
		leaving[t.Pool()] = true
	}
	was := m.pools
	m.pools = make(map[*upstream.Pool]*moves)
	var movers sync.WaitGroup
	var more atomic.Bool
	work := func(move func() bool) {
		movers.Go(func() {
			if move() {
				more.Store(true)
			}
		})
	}
	// The sessions of a pool that is no longer configured stay where they
	// are: there is nowhere to go.
	for name := range m.p.Config().Upstreams {
		pool := m.p.pools.Get(name)
		if pool == nil {
			continue
		}
		of := was[pool]
		if of == nil {
			of = new(moves)
		}
		m.pools[pool] = of
		var sessions []*Session
		if leaving[pool] {
			sessions = m.leavers(pool)
		}
		switch {
		case len(sessions) > 0:
			work(func() bool { return m.leave(ctx, pool, of, sessions) })
		case m.wantsMove(pool):
			work(func() bool { return m.rebalance(ctx, pool, of) })
		default:
			of.departures, of.stays = departures{}, false
		}
	}
	movers.Wait()
	return more.Load() && ctx.Err() == nil
}

// leavers returns the sessions of a pool that are to leave their target.
func (m *mover) leavers(pool *upstream.Pool) []*Session {
	var list []*Session
	for _, s := range m.p.registry.all() {
		if t := s.target.Load(); t != nil && t.Pool() == pool && s.movable() && t.Leaving() {
			list = append(list, s)
		}
	}
	return list
}

// wantsMove reports whether the pool's counts differ by more than
// rebalance.skew.
func (m *mover) wantsMove(pool *upstream.Pool) bool {
	if skew, _ := pool.Rebalance(); skew <= 0 {
		return false
	}
	_, _, ok := pool.NextMove(m.underWay(pool)...)
	return ok
}

// leave moves sessions off their target at the pool's rate. Each takes a
// place in redial_rate before it leaves, so that its client is not held for
// that. While there is nowhere to go, they are better off where they are. It
// reports whether its time has run out.
func (m *mover) leave(ctx context.Context, pool *upstream.Pool, of *moves, sessions []*Session) (more bool) {
	log := m.p.log.With(zap.String("upstream", pool.Name()))
	if !pool.Reachable(ctx) {
		if !of.stays && ctx.Err() == nil {
			log.Warn("no target takes the sessions of a leaving one: they stay", zap.Int("sessions", len(sessions)))
			of.stays = true
		}
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, movePass)
	defer cancel()
	moved := 0
	for _, s := range sessions {
		// It may have lost its upstream since, or the target may be back.
		mayLeave := func() bool { return s.movable() && s.target.Load().Leaving() }
		if !mayLeave() {
			continue
		}
		if !of.turn(ctx, &of.leave, pool.MoveRate()) || !pool.Room(len(of.underWay)+1) || pool.WaitRedial(ctx) != nil {
			break
		}
		if mayLeave() && of.depart(s, nil) {
			moved++
		}
	}
	if moved > 0 {
		of.stays = false
		log.Info("sessions moved off leaving targets", zap.Int("sessions", moved))
	}
	return ctx.Err() != nil
}

// rebalance moves single sessions until the pool's counts differ by no more
// than rebalance.skew. An upstream may take its time to let a session go;
// what is under way is not moved again, nor another in its place. It reports
// whether its time has run out.
func (m *mover) rebalance(ctx context.Context, pool *upstream.Pool, of *moves) (more bool) {
	_, rate := pool.Rebalance()
	timed, cancel := context.WithTimeout(ctx, movePass)
	defer cancel()
	asked := make(map[*upstream.Target]bool)
	for of.turn(timed, &of.rebalance, rate) {
		from, to, ok := pool.NextMove(m.underWay(pool)...)
		if !ok {
			return false
		}
		s := m.anyOn(from)
		if s == nil || !asked[to] && !to.Reachable(ctx) || pool.WaitRedial(timed) != nil {
			return false
		}
		asked[to] = true
		of.depart(s, to)
	}
	return true
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

// anyOn returns a session that may be moved off the target, or nil.
func (m *mover) anyOn(t *upstream.Target) *Session {
	return m.p.registry.find(func(s *Session) bool { return s.target.Load() == t && s.movable() })
}

// movable reports whether the session could leave its upstream for another,
// and is not about to.
func (s *Session) movable() bool {
	return s.State() == Open && !s.prepaid.Load() && s.outlives()
}

// move leaves the session's upstream at a message boundary. To is where it
// should go, or nil for wherever the pool's balance says. It reports whether
// there was one to leave.
func (s *Session) move(to *upstream.Target) bool {
	if !s.prepaid.CompareAndSwap(false, true) {
		return false // it is on its way
	}
	s.moveTo.Store(to)
	if s.link.Move() {
		return true
	}
	s.prepaid.Store(false)
	s.moveTo.Store(nil)
	return false
}

// CloseOn ends the sessions on a target that can't be moved off it, and those
// that come to be on it until it is undrained.
func (p *Proxy) CloseOn(t *upstream.Target) {
	t.Evict()
	for _, s := range p.registry.all() {
		if s.target.Load() == t && !s.outlives() {
			s.evict()
		}
	}
}

func (s *Session) evict() { s.end(End{Cause: relay.Draining, Reason: "backend is draining"}) }
