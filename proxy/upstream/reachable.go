package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Reachable reports whether a session that left its target now would find
// another: one that may be picked and accepts a connection. Targets may be up
// in name only, those above all that a reload has just brought.
func (p *Pool) Reachable(ctx context.Context) bool {
	p.mu.Lock()
	candidates := slices.Clone(p.available(false, nil, time.Now()))
	p.mu.Unlock()
	ctx, found := context.WithCancel(ctx)
	defer found()
	var one atomic.Bool
	var asked sync.WaitGroup
	for _, t := range candidates {
		asked.Go(func() {
			if t.Reachable(ctx) {
				one.Store(true)
				found() // the others need not be waited for
			}
		})
	}
	asked.Wait()
	return one.Load()
}

// Room reports whether so many more sessions could be dialled now.
func (p *Pool) Room(sessions int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	places := 0
	for _, t := range p.available(false, nil, time.Now()) {
		if p.policy.maxSessions == 0 {
			return true
		}
		places += p.policy.maxSessions - t.sessions - t.dialling
	}
	return places >= sessions
}

// Reachable reports whether the target accepts a connection within
// dial.timeout. One that does not has failed a dial.
func (t *Target) Reachable(ctx context.Context) bool {
	l := t.lease()
	timed, cancel := context.WithTimeout(ctx, l.policy.timeout)
	defer cancel()
	conn, err := l.connect(timed)
	if err == nil {
		conn.Close()
		return true
	}
	if ctx.Err() == nil {
		t.pool.mu.Lock()
		t.failure(time.Now(), err)
		t.pool.mu.Unlock()
	}
	return false
}
