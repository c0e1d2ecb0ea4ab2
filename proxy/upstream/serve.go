package upstream

import (
	"context"
	"sync"

	"github.com/stentproxy/stent/config"
)

// String names the service in the supervision tree.
func (p *Pools) String() string { return "upstreams" }

// task is one thing that Serve keeps doing: checking a target, or following
// a name in DNS.
type task struct {
	target *Target
	health config.Health

	pool   *Pool
	source source
}

// Serve checks the health of targets and follows names in DNS until ctx
// ends, and returns when all of that has stopped. It is a suture service:
// what it learns is kept in the pools, so that it can be started again.
// (An ejected target needs no service to come back: its time is in it.)
func (p *Pools) Serve(ctx context.Context) error {
	var children sync.WaitGroup
	defer children.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	running := make(map[task]context.CancelFunc)
	for {
		changed := p.Changed() // before tasks, so that no change is missed
		wanted := p.tasks()
		for t, stop := range running {
			if !wanted[t] {
				stop()
				delete(running, t)
			}
		}
		for t := range wanted {
			if running[t] != nil {
				continue
			}
			taskCtx, stop := context.WithCancel(ctx)
			running[t] = stop
			children.Go(func() { t.run(taskCtx) })
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t task) run(ctx context.Context) {
	if t.target != nil {
		t.target.watch(ctx, t.health)
		return
	}
	t.pool.follow(ctx, t.source)
}

// tasks returns what the policies ask for now.
func (p *Pools) tasks() map[task]bool {
	all := make(map[task]bool)
	for _, pool := range p.all() {
		pool.mu.Lock()
		for _, s := range pool.policy.sources {
			if s.found() {
				all[task{pool: pool, source: s}] = true
			}
		}
		if h := pool.policy.health; h != nil {
			for _, t := range pool.targets {
				all[task{target: t, health: *h}] = true
			}
		}
		pool.mu.Unlock()
	}
	return all
}
