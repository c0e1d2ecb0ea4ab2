package config

import "fmt"

// ForTarget is the configuration of "stent serve --to": every path is
// relayed, plain HTTP too, to the target to. Empty listen and admin mean the
// defaults.
func ForTarget(to, listen, admin string) (*Config, error) {
	c := DefaultConfig()
	if listen != "" {
		c.Listeners[0].Address = listen
	}
	if admin != "" {
		c.Admin.Address = admin
	}
	route := DefaultRoute()
	route.Path, route.Upstream, route.HTTP = "/*", "target", true
	c.Routes = []Route{route}
	target := DefaultTarget()
	target.URL = to
	target.Name = target.DefaultName()
	pool := DefaultUpstream()
	pool.Targets = []Target{target}
	c.Upstreams = map[string]Upstream{route.Upstream: pool}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("serve %s: %w", to, err)
	}
	return &c, nil
}
