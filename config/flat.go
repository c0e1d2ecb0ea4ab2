package config

// FlatRoute is a route with what its scopes give it.
type FlatRoute struct {
	Route
	// FullPath is the joined path of the scopes and the route.
	FullPath string
	// FullHost is the route's host or that of the innermost scope with one.
	FullHost string
	// Pipelines are those of the file, of the scopes and of the route, in
	// this order.
	Pipelines []string
}

// Flatten lists all routes in the order in which they are tried: in each
// scope, and in the file, the scopes before the routes.
func (c *Config) Flatten() []FlatRoute {
	return flattenScope(nil, Scope{Scopes: c.Scopes, Routes: c.Routes, PipeThrough: c.PipeThrough}, FlatRoute{})
}

func flattenScope(list []FlatRoute, s Scope, outer FlatRoute) []FlatRoute {
	outer = outer.with(s.Path, s.Host, s.PipeThrough)
	for _, inner := range s.Scopes {
		list = flattenScope(list, inner, outer)
	}
	for _, route := range s.Routes {
		flat := outer.with(route.Path, route.Host, route.PipeThrough)
		flat.Route = route
		list = append(list, flat)
	}
	return list
}

func (f FlatRoute) with(path, host string, pipelines []string) FlatRoute {
	f.FullPath = JoinPath(f.FullPath, path)
	if host != "" {
		f.FullHost = host
	}
	f.Pipelines = append(f.Pipelines[:len(f.Pipelines):len(f.Pipelines)], pipelines...)
	return f
}
