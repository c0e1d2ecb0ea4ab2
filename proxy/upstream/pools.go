// Package upstream keeps the pools of backends: which targets there are,
// which of them may be picked, and how one of them is dialled with a
// client's WebSocket handshake (RFC 6455 section 4.1).
//
// A pool's state is kept by its name and a target's by its address, so that
// session counts and health survive a reload of the config.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// Options are what Pools need from outside. The zero value works.
type Options struct {
	Log *zap.Logger
	// Resolver looks up dns+ and srv+ targets; nil is the system's.
	Resolver Resolver
	// DialContext opens connections to targets; nil is a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Footing returns what TLS to a target stands on, so that its holder can
	// drive it otherwise later; nil leaves it the connection itself.
	Footing func(net.Conn) net.Conn
}

// Resolver is the part of net.Resolver that finds targets.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Pools holds every pool of the running config. It is a suture service (see
// Serve) and a prometheus.Collector.
type Pools struct {
	log      *zap.Logger
	resolver Resolver
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	footing  func(net.Conn) net.Conn
	seconds  prometheus.Histogram

	mu sync.Mutex
	// pools are those in the config; removed are those that are not, but
	// that sessions are still on.
	pools, removed map[string]*Pool

	changedMu sync.Mutex
	changed   chan struct{}
}

// NewPools returns Pools without any pool.
func NewPools(o Options) *Pools {
	p := &Pools{
		log:      o.Log,
		resolver: o.Resolver,
		dial:     o.DialContext,
		footing:  o.Footing,
		seconds:  newDialSeconds(),
		pools:    make(map[string]*Pool),
		removed:  make(map[string]*Pool),
		changed:  make(chan struct{}),
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if p.resolver == nil {
		p.resolver = net.DefaultResolver
	}
	if p.dial == nil {
		p.dial = new(net.Dialer).DialContext
	}
	if p.footing == nil {
		p.footing = func(conn net.Conn) net.Conn { return conn }
	}
	return p
}

// Plan is a checked config that Apply puts into force.
type Plan struct {
	policies map[string]*policy
}

// Prepare checks the config's pools and reads their TLS files; it touches
// neither the network nor the running pools. Its errors are joined
// *config.KeyErrors with paths like upstreams.chat.tls.ca.
func Prepare(cfg map[string]config.Upstream) (*Plan, error) {
	plan := &Plan{policies: make(map[string]*policy, len(cfg))}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg)) {
		pol, err := compile(cfg[name])
		if err != nil {
			errs = append(errs, config.Within("upstreams."+name, err))
		}
		plan.policies[name] = pol
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return plan, nil
}

// Apply puts a plan into force. Pools and targets that it does not have are
// drained: they get no new session, and go when the last one has left.
func (p *Pools) Apply(plan *Plan) {
	p.mu.Lock()
	for name, pol := range plan.policies {
		pool, ok := p.pools[name]
		if !ok {
			if pool, ok = p.removed[name]; ok {
				delete(p.removed, name)
			} else {
				pool = newPool(p, name)
			}
			p.pools[name] = pool
		}
		pool.apply(pol)
	}
	for name, pool := range p.pools {
		if _, ok := plan.policies[name]; !ok {
			delete(p.pools, name)
			pool.retire()
			p.removed[name] = pool
		}
	}
	maps.DeleteFunc(p.removed, func(_ string, pool *Pool) bool { return pool.empty() })
	p.mu.Unlock()
	p.notify()
}

// Update is Prepare and Apply: an error leaves the running pools alone.
func (p *Pools) Update(cfg map[string]config.Upstream) error {
	plan, err := Prepare(cfg)
	if err != nil {
		return err
	}
	p.Apply(plan)
	return nil
}

// Get returns the pool of that name, or nil when the config has none.
func (p *Pools) Get(name string) *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pools[name]
}

// Drain keeps new sessions off a target until Undrain. Draining one that
// drains already changes nothing. The error is ErrUnknown.
func (p *Pools) Drain(pool, target string) error { return p.setDrained(pool, target, true) }

// Undrain lets new sessions onto a target again.
func (p *Pools) Undrain(pool, target string) error { return p.setDrained(pool, target, false) }

func (p *Pools) setDrained(pool, target string, drained bool) error {
	found := p.Get(pool)
	if found == nil {
		return fmt.Errorf("%w upstream %q", ErrUnknown, pool)
	}
	if err := found.setDrained(target, drained); err != nil {
		return err
	}
	p.notify()
	return nil
}

// Changed returns a channel that is closed at the next change of any
// target's state or place in the config: whoever moves sessions then asks
// Leaving, and each pool's NextMove.
func (p *Pools) Changed() <-chan struct{} {
	p.changedMu.Lock()
	defer p.changedMu.Unlock()
	return p.changed
}

func (p *Pools) notify() {
	p.changedMu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.changedMu.Unlock()
}

// Leaving returns the targets that sessions are to move away from and are
// still on, or come to: drained ones, and those gone from the config or from DNS.
func (p *Pools) Leaving() []*Target {
	var all []*Target
	for _, pool := range p.all() {
		all = append(all, pool.leavers()...)
	}
	return all
}

// all returns every pool, the removed ones with sessions included, by name.
func (p *Pools) all() []*Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.removed, func(_ string, pool *Pool) bool { return pool.empty() })
	all := slices.Collect(maps.Values(p.pools))
	all = slices.AppendSeq(all, maps.Values(p.removed))
	slices.SortFunc(all, func(a, b *Pool) int { return cmp.Compare(a.name, b.name) })
	return all
}
