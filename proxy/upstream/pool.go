package upstream

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/zap"
)

// Pool is one entry of `upstreams`.
type Pool struct {
	name   string
	pools  *Pools
	log    *zap.Logger
	redial *redialer

	mu     sync.Mutex
	policy *policy
	rng    *rand.Rand
	// targets are those listed now, in the order of the config; leaving are
	// those no longer listed that sessions are still on.
	targets, leaving []*Target
	// resolved holds the last good answer for each source that is looked up.
	resolved map[string][]member
	// unsettled are the sources that have had no answer of any kind yet;
	// settled is closed when there are none.
	unsettled map[string]bool
	settled   chan struct{}
	scratch   []*Target
	results   [resultCount]uint64
}

// member is a target as the config and DNS list it.
type member struct {
	address
	name     string
	weight   int
	priority int
}

// affinity is a client as a hashing pool sees it.
type affinity interface {
	affinity(hashKey) string
}

func newPool(p *Pools, name string) *Pool {
	settled := make(chan struct{})
	close(settled)
	return &Pool{
		name:    name,
		pools:   p,
		log:     p.log.With(zap.String("upstream", name)),
		redial:  newRedialer(),
		policy:  &policy{},
		rng:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		settled: settled,
	}
}

// Name returns the pool's name in the config.
func (p *Pool) Name() string { return p.name }

// apply gives the pool another policy.
func (p *Pool) apply(pol *policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy = pol
	p.redial.set(pol.redialRate)

	wanted := make(map[string]bool)
	for _, s := range pol.sources {
		if s.found() {
			wanted[s.raw] = true
		}
	}
	maps.DeleteFunc(p.resolved, func(raw string, _ []member) bool { return !wanted[raw] })
	unsettled := make(map[string]bool)
	for raw := range wanted {
		if _, ok := p.resolved[raw]; !ok {
			unsettled[raw] = true
		}
	}
	p.unsettle(unsettled)
	p.list()
}

// retire takes all targets away from a pool that the config no longer has.
// Its rates stay, for the sessions that are still on it.
func (p *Pool) retire() {
	p.mu.Lock()
	last := *p.policy
	p.mu.Unlock()
	last.sources, last.health = nil, nil
	p.apply(&last)
}

// unsettle sets which sources are still waited for. A dial that found no
// target waits for them: see reserve.
func (p *Pool) unsettle(sources map[string]bool) {
	was := len(p.unsettled) > 0
	p.unsettled = sources
	switch is := len(sources) > 0; {
	case is && !was:
		p.settled = make(chan struct{})
	case was && !is:
		close(p.settled)
	}
}

// resolve takes what DNS answered for a source. No members, after a failed
// lookup, keep the last good ones. It reports whether anything changed.
func (p *Pool) resolve(raw string, members []member) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.ContainsFunc(p.policy.sources, func(s source) bool { return s.raw == raw }) {
		return false
	}
	if p.unsettled[raw] {
		rest := maps.Clone(p.unsettled)
		delete(rest, raw)
		// Last, so that whoever waits finds the targets.
		defer p.unsettle(rest)
	}
	if len(members) == 0 || slices.Equal(p.resolved[raw], members) {
		return false
	}
	if p.resolved == nil {
		p.resolved = make(map[string][]member)
	}
	p.resolved[raw] = members
	p.list()
	return true
}

// list makes targets what the policy and DNS say, keeping the state of those
// that are known. p.mu is held.
func (p *Pool) list() {
	known := make(map[address]*Target)
	for _, t := range slices.Concat(p.targets, p.leaving) {
		t.listed = false
		known[t.addr] = t
	}
	p.targets = nil
	seen := make(map[string]bool)
	for _, m := range p.members() {
		if seen[m.url] {
			continue // two sources found it: the first counts
		}
		seen[m.url] = true
		t := known[m.address]
		if t == nil {
			t = &Target{pool: p, addr: m.address}
			known[m.address] = t
		}
		t.listed = true
		t.evicts = t.evicts && t.drained
		t.turn = 0 // turns are counted in weights, which may be others now
		t.name, t.weight, t.priority = m.name, m.weight, m.priority
		t.hash = xxhash.Sum64String(m.name)
		t.tls = nil
		if m.tls {
			t.tls = p.policy.tls[m.serverName]
		}
		if p.policy.health == nil {
			t.down, t.checked, t.streak = false, false, 0
		}
		if p.policy.outlier == nil {
			t.failed, t.ejected = 0, time.Time{}
		}
		p.targets = append(p.targets, t)
	}
	p.leaving = nil
	for _, t := range known {
		if t.listed {
			continue
		}
		t.idle()
		if t.busy() {
			p.leaving = append(p.leaving, t)
		}
	}
	slices.SortFunc(p.leaving, func(a, b *Target) int { return cmp.Compare(a.name, b.name) })
}

// members returns what the policy's sources stand for now.
func (p *Pool) members() []member {
	var all []member
	for _, s := range p.policy.sources {
		if s.found() {
			all = append(all, p.resolved[s.raw]...)
			continue
		}
		all = append(all, member{address: s.template, name: s.name, weight: s.weight})
	}
	return all
}

// forget drops a target that is no longer listed when nothing is on it any
// more. p.mu is held.
func (p *Pool) forget(t *Target) {
	if t.listed || t.busy() {
		return
	}
	if i := slices.Index(p.leaving, t); i >= 0 {
		p.leaving = slices.Delete(p.leaving, i, i+1)
	}
}

func (p *Pool) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.targets) == 0 && len(p.leaving) == 0
}

func (p *Pool) setDrained(name string, drained bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.targets {
		if t.name != name {
			continue
		}
		if t.drained != drained {
			t.drained, t.evicts = drained, false
			p.log.Info(map[bool]string{true: "target draining", false: "target undrained"}[drained],
				zap.String("target", name), zap.Int("sessions", t.sessions))
		}
		return nil
	}
	if drained && slices.ContainsFunc(p.leaving, func(t *Target) bool { return t.name == name }) {
		return nil // it drains already, for good
	}
	return fmt.Errorf("%w target %q of upstream %q", ErrUnknown, name, p.name)
}

func (p *Pool) leavers() []*Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*Target
	for _, t := range slices.Concat(p.targets, p.leaving) {
		if (t.drained || !t.listed) && t.sessions+t.dialling > 0 {
			all = append(all, t)
		}
	}
	return all
}

// available returns the targets that may be picked now, of the best priority
// that has any; the slice is good until the next call. Where no target is up,
// those that are ejected are asked all the same: a doubtful target is better
// than none. p.mu is held.
func (p *Pool) available(plain bool, tried []Attempt, now time.Time) []*Target {
	if up := p.inState(Up, plain, tried, now); len(up) > 0 || p.anyUp(now) {
		return up
	}
	return p.inState(Ejected, plain, tried, now)
}

func (p *Pool) anyUp(now time.Time) bool {
	return slices.ContainsFunc(p.targets, func(t *Target) bool { return t.state(now) == Up })
}

func (p *Pool) inState(state State, plain bool, tried []Attempt, now time.Time) []*Target {
	p.scratch = p.scratch[:0]
	best := 0
	for _, t := range p.targets {
		switch {
		case t.state(now) != state, !plain && t.full(p.policy.maxSessions), wasTried(tried, t):
			continue
		case len(p.scratch) > 0 && t.priority > best:
			continue
		case t.priority < best:
			p.scratch = p.scratch[:0]
		}
		best = t.priority
		p.scratch = append(p.scratch, t)
	}
	return p.scratch
}

func wasTried(tried []Attempt, t *Target) bool {
	return slices.ContainsFunc(tried, func(a Attempt) bool { return a.Target == t })
}

// noTarget says why there is none. p.mu is held.
func (p *Pool) noTarget(now time.Time) error {
	var count [len(stateNames)]int
	full := 0
	for _, t := range p.targets {
		if s := t.state(now); s == Up {
			full++
		} else {
			count[s]++
		}
	}
	var why []string
	for s, n := range count {
		if n > 0 {
			why = append(why, fmt.Sprintf("%d %v", n, State(s)))
		}
	}
	if full > 0 {
		why = append(why, fmt.Sprintf("%d full", full))
	}
	if len(p.targets) == 0 {
		why = append(why, "none known")
	}
	return fmt.Errorf("upstream %s: %w: %s", p.name, ErrNoTarget, strings.Join(why, ", "))
}
