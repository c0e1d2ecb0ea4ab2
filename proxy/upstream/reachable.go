package upstream

import (
	"context"
	"slices"
	"time"
)

// Reachable reports whether a session that left its target now would find
// another: one that may be picked and accepts a connection. Targets may be up
// in name only, those above all that a reload has just brought.
func (p *Pool) Reachable(ctx context.Context) bool {
	p.mu.Lock()
	candidates := slices.Clone(p.available(false, nil, time.Now()))
	p.mu.Unlock()
	return slices.ContainsFunc(candidates, func(t *Target) bool { return t.Reachable(ctx) })
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
