package config

import (
	"maps"
	"slices"
	"strings"
)

// table checks scopes, routes and pipelines, and how they hang together.
func (c *checker) table() {
	c.plugs(c.config.Endpoint)
	for _, name := range slices.Sorted(maps.Keys(c.config.Pipelines)) {
		c.name(name, join("pipelines", name))
		c.plugs(c.config.Pipelines[name])
	}
	c.pipeThrough(c.config.PipeThrough, "pipe_through")
	c.scopes(c.config.Scopes, "")
	c.routes(c.config.Routes, "")

	flat := c.config.Flatten()
	c.unreachable(flat)
	c.stacks(flat)
	c.sessions(flat)
	c.unused(flat)
	if len(flat) == 0 {
		c.warn("routes", "no routes: every request is answered 404")
	}
}

func (c *checker) scopes(scopes []Scope, host string) {
	for _, s := range scopes {
		if s.Path != "" {
			if err := validScopePath(s.Path); err != nil {
				c.fail(join(s.KeyPath, "path"), "%s", err)
			}
		}
		inner := c.host(s.Host, host, s.KeyPath)
		c.pipeThrough(s.PipeThrough, join(s.KeyPath, "pipe_through"))
		c.scopes(s.Scopes, inner)
		c.routes(s.Routes, inner)
	}
}

func (c *checker) routes(routes []Route, host string) {
	for _, r := range routes {
		c.host(r.Host, host, r.KeyPath)
		c.pipeThrough(r.PipeThrough, join(r.KeyPath, "pipe_through"))
		c.route(r)
	}
}

// host checks a host below an outer one and returns that which holds.
func (c *checker) host(host, outer, path string) string {
	if host == "" {
		return outer
	}
	at := join(path, "host")
	if err := validHostPattern(host); err != nil {
		c.fail(at, "%s", err)
	} else if !coversHost(outer, host) {
		c.fail(at, "the scope around it is for %s only", outer)
	}
	return host
}

func (c *checker) pipeThrough(names []string, path string) {
	for i, name := range names {
		if _, ok := c.config.Pipelines[name]; !ok {
			c.dangling(item(path, i), "pipeline", name, slices.Collect(maps.Keys(c.config.Pipelines)))
		}
	}
}

// stacks warns of pipelines that a request would run twice.
func (c *checker) stacks(flat []FlatRoute) {
	for _, f := range flat {
		seen := make(map[string]bool, len(f.Pipelines))
		for _, name := range f.Pipelines {
			if seen[name] {
				c.warn(f.KeyPath, "pipeline %q runs twice for %s", name, f.FullPath)
				break
			}
			seen[name] = true
		}
	}
}

// unused warns of upstreams and pipelines that no route leads to.
func (c *checker) unused(flat []FlatRoute) {
	used := make(map[string]bool)
	for _, f := range flat {
		used[join("upstreams", f.Upstream)] = true
		for _, name := range f.Pipelines {
			used[join("pipelines", name)] = true
		}
	}
	for name := range c.config.Upstreams {
		if at := join("upstreams", name); !used[at] {
			c.warn(at, "no route uses this upstream")
		}
	}
	for name := range c.config.Pipelines {
		if at := join("pipelines", name); !used[at] {
			c.warn(at, "no route uses this pipeline")
		}
	}
}

// unreachable warns of routes all of whose requests an earlier one takes.
func (c *checker) unreachable(flat []FlatRoute) {
	// The routes reached so far, by their path without the star.
	exact, below := make(map[string][]int), make(map[string][]int)
	for i, f := range flat {
		base, prefix := strings.CutSuffix(f.FullPath, "/*")
		candidates := slices.Clone(below[base])
		if !prefix {
			candidates = append(candidates, exact[base]...)
		}
		for at := strings.LastIndexByte(base, '/'); at >= 0; at = strings.LastIndexByte(base[:at], '/') {
			candidates = append(candidates, below[base[:at]]...)
		}
		slices.Sort(candidates)
		first := slices.IndexFunc(candidates, func(j int) bool { return flat[j].takesAll(f) })
		switch {
		case first >= 0:
			earlier := flat[candidates[first]]
			c.warn(join(f.KeyPath, "path"), "never reached: %s, %s, comes first and takes all its requests", earlier.KeyPath, earlier.FullPath)
		case prefix:
			below[base] = append(below[base], i)
		default:
			exact[base] = append(exact[base], i)
		}
	}
}

// takesAll reports whether f, whose path covers that of later, leaves it
// nothing.
func (f FlatRoute) takesAll(later FlatRoute) bool {
	return coversHost(f.FullHost, later.FullHost) && coversMethods(f.Methods, later.Methods)
}

// coversMethods reports whether outer has all methods of inner; no methods
// are all of them.
func coversMethods(outer, inner []string) bool {
	if len(outer) == 0 || len(inner) == 0 {
		return len(outer) == 0
	}
	return !slices.ContainsFunc(inner, func(m string) bool { return !slices.Contains(outer, m) })
}
