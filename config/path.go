package config

import (
	"slices"
	"strings"
)

// JoinPath puts the path of a scope in front of that of a route or scope in
// it: /live and /* make /live/*, / and /x make /x.
func JoinPath(scope, path string) string {
	if path == "" {
		return scope
	}
	return strings.TrimSuffix(scope, "/") + path
}

// hasDotSegment reports whether a segment of path is "." or "..".
func hasDotSegment(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." })
}
