package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxWeight bounds a target's weight, and with it the size of hash rings.
const maxWeight = 1000

func (c *checker) upstreams() {
	for _, name := range slices.Sorted(maps.Keys(c.config.Upstreams)) {
		at := join("upstreams", name)
		if name == UpstreamNone {
			c.fail(at, "%q is no name for an upstream: a route says it to have none", name)
		}
		c.name(name, at)
		c.upstream(c.config.Upstreams[name], at)
	}
}

func (c *checker) upstream(u Upstream, path string) {
	c.targets(u, join(path, "targets"))
	c.balance(u.Balance, join(path, "balance"))
	c.positive(float64(u.Dial.Timeout), join(path, "dial.timeout"))
	c.positive(float64(u.Dial.Attempts), join(path, "dial.attempts"))
	if u.Rebalance.Skew > 0 {
		c.positive(u.Rebalance.Rate, join(path, "rebalance.rate"))
	}
	c.pair(u.TLS.Cert, u.TLS.Key, join(path, "tls"))
	if u.TLS.ServerName != "" && !validHost(u.TLS.ServerName) {
		c.fail(join(path, "tls.server_name"), "%q is no host", u.TLS.ServerName)
	}
	if h := u.Health; h != nil {
		c.health(h, join(path, "health"))
	}
	if o := u.Outlier; o != nil {
		at := join(path, "outlier")
		c.positive(float64(o.Failures), join(at, "failures"))
		c.positive(float64(o.Eject), join(at, "eject"))
		c.positive(float64(o.MaxEjected), join(at, "max_ejected"))
	}
}

func (c *checker) targets(u Upstream, path string) {
	if len(u.Targets) == 0 {
		c.fail(path, "required: at least one target")
	}
	tls := false
	names, addresses := make(map[string]string), make(map[string]string)
	for i, t := range u.Targets {
		at := item(path, i)
		endpoint, err := t.Endpoint()
		if err != nil {
			c.fail(c.urlPath(at), "%s", err)
		}
		tls = tls || endpoint.TLS || err != nil
		if t.Weight < 1 || t.Weight > maxWeight {
			c.fail(join(at, "weight"), "must be between 1 and %d; a target is taken out by draining it", maxWeight)
		}
		if !validTargetName(t.Name) {
			c.fail(join(at, "name"), "a target's name is up to %d printable characters without spaces", maxTargetName)
		}
		address := fmt.Sprint(endpoint)
		switch {
		case err == nil && addresses[address] != "":
			c.fail(c.urlPath(at), "%s has this address already", addresses[address])
		case t.Name != "" && names[t.Name] != "":
			c.fail(at, "%s is called %q already", names[t.Name], t.Name)
		default:
			names[t.Name], addresses[address] = at, at
		}
	}
	if u.TLS != (UpstreamTLS{}) && !tls {
		c.warn(join(parent(path), "tls"), "no target has a wss or https URL: the settings have no effect")
	} else if u.TLS.InsecureSkipVerify {
		c.warn(join(parent(path), "tls.insecure_skip_verify"), "anyone between stent and the targets can pose as one of them")
	}
}

// urlPath is where a target's URL stands: it may be the target itself.
func (c *checker) urlPath(target string) string {
	if s := c.config.source; s != nil {
		if _, ok := s.keys[join(target, "url")]; !ok {
			return target
		}
	}
	return join(target, "url")
}

// hashKeys are the keys of {hash: key}; a colon at the end takes a name.
var hashKeys = []string{"id", "ip", "path", "query:", "header:", "cookie:"}

func (c *checker) balance(b Balance, path string) {
	if b.Kind != BalanceHash {
		if !slices.Contains(balanceKinds, string(b.Kind)) {
			c.fail(path, "unknown balance %q", b.Kind)
		}
		return
	}
	at := join(path, "hash")
	prefix, name, named := strings.Cut(b.Key, ":")
	if named {
		prefix += ":"
	}
	switch {
	case !slices.Contains(hashKeys, prefix) || named && name == "":
		c.fail(at, "%q is no key; want id, ip, path, query:NAME, header:NAME or cookie:NAME", b.Key)
	case prefix == "header:" || prefix == "cookie:":
		c.headerName(name, at)
	}
}

func (c *checker) health(h *Health, path string) {
	if !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		c.fail(join(path, "path"), "want a path such as /healthz, as it stands in a request")
	}
	c.positive(float64(h.Interval), join(path, "interval"))
	c.positive(float64(h.Timeout), join(path, "timeout"))
	c.positive(float64(h.Healthy), join(path, "healthy"))
	c.positive(float64(h.Unhealthy), join(path, "unhealthy"))
}
