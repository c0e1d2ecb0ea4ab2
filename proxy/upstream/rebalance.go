package upstream

import (
	"time"

	"github.com/stentproxy/stent/config"
)

// Load is one target's share of a pool, for Imbalance.
type Load struct {
	Sessions, Weight int
}

// Imbalance says which target should lose one session to which: the one with
// the most sessions for its weight to the one with the fewest, as long as the
// most is above (1+skew) times the fewest and the move doesn't just turn the
// difference around. It returns indices of loads.
func Imbalance(loads []Load, skew float64) (from, to int, ok bool) {
	if skew <= 0 || len(loads) < 2 {
		return 0, 0, false
	}
	share := func(l Load, change int) float64 { return float64(l.Sessions+change) / float64(l.Weight) }
	for i, l := range loads {
		// Among equals, such as empty ones, the heaviest has most to take.
		if a, b := share(l, 0), share(loads[to], 0); a < b || a == b && l.Weight > loads[to].Weight {
			to = i
		}
		if share(l, 0) > share(loads[from], 0) {
			from = i
		}
	}
	ok = share(loads[from], 0) > (1+skew)*share(loads[to], 0) &&
		share(loads[from], -1) >= share(loads[to], 1)
	return from, to, ok
}

// Move is a session on its way from one target to another. From is nil once
// it has left.
type Move struct{ From, To *Target }

// NextMove returns which target of the pool should lose one session to which,
// or false while the counts differ by no more than rebalance.skew, or where
// that is off. A hashing pool has no moves: its keys have homes. The mover
// closes that session's leg and redials with Handshake.Prefer set to `to`.
// Moves that are under way count as done.
func (p *Pool) NextMove(underWay ...Move) (from, to *Target, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy.rebalance.Skew <= 0 || p.policy.balance.kind == config.BalanceHash {
		return nil, nil, false
	}
	candidates := p.available(true, nil, time.Now())
	loads := make([]Load, len(candidates))
	for i, t := range candidates {
		loads[i] = Load{t.sessions + t.dialling, t.weight}
		for _, m := range underWay {
			if m.From == t {
				loads[i].Sessions--
			}
			if m.To == t {
				loads[i].Sessions++
			}
		}
	}
	i, j, ok := Imbalance(loads, p.policy.rebalance.Skew)
	if !ok || candidates[i].sessions == 0 || candidates[j].full(p.policy.maxSessions) {
		return nil, nil, false
	}
	return candidates[i], candidates[j], true
}

// Rebalance returns the pool's rebalance.skew and rate, in moves a second.
func (p *Pool) Rebalance() (skew, rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy.rebalance.Skew, p.policy.rebalance.Rate
}
