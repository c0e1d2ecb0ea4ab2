package config

// index tells everything that has a KeyPath its own.
func (c *Config) index() {
	for i := range c.Listeners {
		c.Listeners[i].KeyPath = item("listeners", i)
	}
	indexPlugs(c.Endpoint, "endpoint")
	for name, plugs := range c.Pipelines {
		indexPlugs(plugs, join("pipelines", name))
	}
	indexScopes(c.Scopes, "scopes")
	indexRoutes(c.Routes, "routes")
	for name, pool := range c.Upstreams {
		pool.KeyPath = join("upstreams", name)
		for i := range pool.Targets {
			pool.Targets[i].KeyPath = item(join(pool.KeyPath, "targets"), i)
		}
		c.Upstreams[name] = pool
	}
}

func indexPlugs(plugs []Plug, path string) {
	for i := range plugs {
		plugs[i].KeyPath = item(path, i)
	}
}

func indexScopes(scopes []Scope, path string) {
	for i := range scopes {
		at := item(path, i)
		scopes[i].KeyPath = at
		indexScopes(scopes[i].Scopes, join(at, "scopes"))
		indexRoutes(scopes[i].Routes, join(at, "routes"))
	}
}

func indexRoutes(routes []Route, path string) {
	for i := range routes {
		at := item(path, i)
		routes[i].KeyPath = at
		for j := range routes[i].Handlers {
			routes[i].Handlers[j].KeyPath = item(join(at, "handlers"), j)
		}
	}
}
