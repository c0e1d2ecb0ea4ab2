package config

import (
	"regexp"
	"slices"
	"strings"
)

// poolName is what upstreams and pipelines may be called: the names stand in
// key paths, metrics and the admin API's URLs.
var poolName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (c *checker) name(name, path string) {
	if !poolName.MatchString(name) {
		c.fail(path, "a name is up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
}

// maxTargetName bounds the name of a target, in bytes.
const maxTargetName = 128

func validTargetName(name string) bool {
	return len(name) <= maxTargetName && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// dangling reports a name that nothing is called.
func (c *checker) dangling(path, what, name string, known []string) {
	slices.Sort(known)
	p := c.fail(path, "unknown %s %q", what, name)
	p.suggestion = suggest(name, known)
}
