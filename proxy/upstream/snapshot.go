package upstream

import (
	"slices"
	"time"

	"github.com/stentproxy/stent/config"
)

// PoolInfo is a pool as GET /api/upstreams shows it.
type PoolInfo struct {
	Name    string             `json:"name"`
	Balance config.BalanceKind `json:"balance"`
	Targets []TargetInfo       `json:"targets"`
}

// TargetInfo is a target as GET /api/upstreams shows it.
type TargetInfo struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	State    State  `json:"state"`
	Sessions int    `json:"sessions"`
	Dials    uint64 `json:"dials"`
	Failures uint64 `json:"failures"`
}

// Snapshot returns every pool by name, with those targets and pools that the
// config no longer has while sessions are on them.
func (p *Pools) Snapshot() []PoolInfo {
	infos := []PoolInfo{}
	for _, pool := range p.all() {
		infos = append(infos, pool.info())
	}
	return infos
}

func (p *Pool) info() PoolInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	info := PoolInfo{Name: p.name, Balance: p.policy.balance.kind, Targets: []TargetInfo{}}
	now := time.Now()
	for _, t := range slices.Concat(p.targets, p.leaving) {
		info.Targets = append(info.Targets, TargetInfo{
			Name: t.name, URL: t.addr.url, State: t.state(now),
			Sessions: t.sessions, Dials: t.dials, Failures: t.failures,
		})
	}
	return info
}
