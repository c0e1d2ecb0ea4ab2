package proxy

import (
	"fmt"
	"strings"
)

// pathPattern is the path of a route, which is written decoded: "/x" for
// itself alone, "/x/*" for /x and all below it.
type pathPattern struct {
	// path is without the star and the slash before it: empty for "/*".
	path   string
	prefix bool
	// segments counts those of path.
	segments int
}

func newPathPattern(s string) (pathPattern, error) {
	path, prefix := strings.CutSuffix(s, "/*")
	if path == "" && !prefix || path != "" && path[0] != '/' || strings.Contains(path, "*") {
		return pathPattern{}, fmt.Errorf("%q is neither like /x nor like /x/*", s)
	}
	return pathPattern{path, prefix, strings.Count(strings.TrimSuffix(path, "/"), "/")}, nil
}

// match says whether the pattern has a path of decodePath's form.
func (p pathPattern) match(path string) bool {
	if !p.prefix {
		return path == p.path
	}
	rest, ok := strings.CutPrefix(path, p.path)
	return ok && (rest == "" || rest[0] == '/')
}

// resembles is match for a backend that does not mind a slash at the end.
func (p pathPattern) resembles(path string) bool {
	return p.match(path) || !p.prefix && strings.TrimSuffix(p.path, "/") == strings.TrimSuffix(path, "/")
}

// hostPattern is the host of a route: a name, "*.example.com" for all names
// below it at any depth, or nothing for every host.
type hostPattern struct {
	name string // in lower case; with the dot before it where there is a star
	star bool
}

func newHostPattern(s string) hostPattern {
	name, star := strings.CutPrefix(strings.ToLower(s), "*")
	return hostPattern{name, star}
}

// any says whether the pattern is that of every host.
func (p hostPattern) any() bool { return p == hostPattern{} }

// match says whether the pattern has a name of hostName's form.
func (p hostPattern) match(name string) bool {
	if p.star {
		return len(name) > len(p.name) && strings.HasSuffix(name, p.name)
	}
	return p.name == "" || p.name == name
}

// hostName returns the name in a Host field: in lower case, without its port
// and the dot of the DNS root.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
