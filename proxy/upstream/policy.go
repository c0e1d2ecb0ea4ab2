package upstream

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stentproxy/stent/config"
)

// policy is one config.Upstream, compiled. It is never changed: a reload
// gives the pool another.
type policy struct {
	sources     []source
	balance     balance
	timeout     time.Duration // of one dial
	attempts    int
	maxSessions int
	redialRate  float64
	rebalance   config.Rebalance
	// tls is by the name that a target's certificate is checked against.
	tls     map[string]*tls.Config
	health  *config.Health
	outlier *config.Outlier
}

type balance struct {
	kind config.BalanceKind
	key  hashKey
}

// compile reads the pool's TLS files and checks what the types of config
// can't. Its errors carry paths below the pool's own.
func compile(u config.Upstream) (*policy, error) {
	// A Config from a file has its defaults; one made in Go may lack them.
	def := config.DefaultUpstream()
	pol := &policy{
		balance:     balance{kind: cmp.Or(u.Balance.Kind, def.Balance.Kind)},
		timeout:     cmp.Or(u.Dial.Timeout, def.Dial.Timeout).Std(),
		attempts:    cmp.Or(u.Dial.Attempts, def.Dial.Attempts),
		maxSessions: u.MaxSessions,
		redialRate:  u.RedialRate,
		rebalance:   u.Rebalance,
		health:      u.Health,
		outlier:     u.Outlier,
	}
	if h := u.Health; h != nil {
		whole, def := *h, config.DefaultHealth()
		whole.Interval = cmp.Or(h.Interval, def.Interval)
		whole.Timeout = cmp.Or(h.Timeout, def.Timeout)
		whole.Path = cmp.Or(h.Path, "/")
		pol.health = &whole
	}
	var errs []error
	at := func(path string, err error) {
		errs = append(errs, &config.KeyError{Path: path, Err: err})
	}
	if h := pol.health; h != nil && (h.Path[0] != '/' || strings.ContainsFunc(h.Path, breaksLine)) {
		at("health.path", fmt.Errorf("%q is not a path", h.Path))
	}
	if pol.balance.kind == config.BalanceHash {
		var err error
		if pol.balance.key, err = parseHashKey(u.Balance.Key); err != nil {
			at("balance.hash", err)
		}
	}
	names := make(map[string]bool)
	urls := make(map[string]bool)
	for i, t := range u.Targets {
		path := fmt.Sprintf("targets[%d]", i)
		s, err := newSource(t)
		if err != nil {
			at(path, err)
			continue
		}
		url := cmp.Or(s.template.url, s.raw)
		switch {
		case s.weight < 0:
			at(path, errors.New("weight must be positive"))
		case urls[url]:
			at(path, fmt.Errorf("target %s is listed twice", url))
		case s.name != "" && names[s.name]:
			at(path, fmt.Errorf("target name %q is used twice", s.name))
		}
		urls[url], names[s.name] = true, true
		pol.sources = append(pol.sources, s)
	}
	if len(u.Targets) == 0 {
		at("targets", errors.New("a pool needs a target"))
	}
	secure, err := compileTLS(u.TLS)
	if err != nil {
		errs = append(errs, err)
	}
	pol.tls = make(map[string]*tls.Config)
	for _, s := range pol.sources {
		if name := s.template.serverName; s.template.tls && pol.tls[name] == nil {
			named := secure.Clone()
			named.ServerName = cmp.Or(secure.ServerName, name)
			pol.tls[name] = named
		}
	}
	return pol, errors.Join(errs...)
}
