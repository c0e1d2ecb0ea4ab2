package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxPath bounds the path of a route or scope, in bytes.
const maxPath = 2048

// JoinPath puts the path of a scope in front of that of a route or scope in
// it: /live and /* make /live/*, / and /x make /x, /live and / make /live.
func JoinPath(scope, path string) string {
	scope = strings.TrimSuffix(scope, "/")
	switch {
	case path == "" || path == "/" && scope != "":
		return scope
	default:
		return scope + path
	}
}

// validPath checks the path of a route or scope. Requests are matched by
// their decoded path, so that an encoded one here would never match; dot
// segments are refused in requests.
func validPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return errors.New("a path begins with a slash")
	case len(path) > maxPath:
		return fmt.Errorf("a path is at most %d bytes long", maxPath)
	case strings.Contains(path, "//"):
		return errors.New("a path holds no empty segments: repeated slashes in requests count as one")
	case hasDotSegment(path):
		return errors.New("a path holds no dot segments: requests with them are refused")
	case strings.Contains(path, "%"):
		return errors.New("write the path decoded: requests are matched by their decoded path")
	case strings.ContainsAny(path, `\?#`):
		return errors.New(`a path holds no "\", "?" or "#"`)
	case strings.ContainsFunc(path, unicode.IsControl):
		return errors.New("a path holds no control characters")
	}
	return nil
}

// validRoutePath also checks the star.
func validRoutePath(path string) error {
	if err := validPath(path); err != nil {
		return err
	}
	if strings.Contains(strings.TrimSuffix(path, "/*"), "*") {
		return errors.New("a star stands only for the last whole segment, as in /socket/*")
	}
	return nil
}

func validScopePath(path string) error {
	if strings.Contains(path, "*") {
		return errors.New("the path of a scope holds no star: it is a prefix anyway")
	}
	return validPath(path)
}

// hasDotSegment reports whether a segment of path is "." or "..".
func hasDotSegment(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." })
}
