package upstream

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

const (
	// resolveEvery is how often a name is looked up again. Go's resolver does
	// not tell a record's TTL.
	resolveEvery = 30 * time.Second
	// resolveRetry is how soon after a lookup that failed.
	resolveRetry = 5 * time.Second
	// resolveTimeout bounds one lookup.
	resolveTimeout = 10 * time.Second
)

// follow looks a source up again and again until ctx ends. A failed lookup
// keeps the last good answer.
func (p *Pool) follow(ctx context.Context, s source) {
	failing := false
	for {
		members, err := p.pools.lookup(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if p.resolve(s.raw, members) {
			p.log.Info("targets resolved", zap.String("source", s.raw), zap.Int("targets", len(members)))
			p.pools.notify()
		}
		pause := resolveEvery
		if err != nil {
			if !failing {
				p.log.Warn("targets not resolved", zap.String("source", s.raw), zap.Error(err))
			}
			pause = resolveRetry
		}
		failing = err != nil
		if sleep(ctx, jittered(pause)) != nil {
			return
		}
	}
}

// lookup returns the targets that a source stands for, in a fixed order; an
// empty answer is an error.
func (p *Pools) lookup(ctx context.Context, s source) ([]member, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var members []member
	var err error
	if s.discovery == config.DiscoverSRV {
		members, err = p.lookupSRV(ctx, s)
	} else {
		members, err = p.lookupHost(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", s.host, err)
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("look up %s: no address", s.host)
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.url, b.url))
	})
	return members, nil
}

// lookupHost makes every address of a name a target.
func (p *Pools) lookupHost(ctx context.Context, s source) ([]member, error) {
	hosts, err := p.resolver.LookupHost(ctx, s.host)
	if err != nil {
		return nil, err
	}
	var members []member
	for _, host := range hosts {
		members = append(members, s.member(s.template.at(host, s.port)))
	}
	return members, nil
}

// lookupSRV makes every SRV record a target (RFC 2782). Its host is looked up
// when it is dialled.
func (p *Pools) lookupSRV(ctx context.Context, s source) ([]member, error) {
	_, records, err := p.resolver.LookupSRV(ctx, "", "", s.host)
	if err != nil {
		return nil, err
	}
	var members []member
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		if host == "" {
			continue // "." says that the service is not offered here
		}
		m := s.member(s.template.at(host, int(r.Port)))
		m.priority = int(r.Priority)
		// A weight of 0 is "hardly ever" beside others and "equal" among
		// zeros: a weight of 1 is close to both.
		m.weight *= max(1, int(r.Weight))
		members = append(members, m)
	}
	return members, nil
}

// member is one answer's target, named by its place and by the name of its
// entry, if that has one.
func (s source) member(a address) member {
	name := a.dial
	if s.name != "" {
		name = s.name + "@" + name
	}
	return member{address: a, name: name, weight: s.weight}
}

var _ Resolver = (*net.Resolver)(nil)
