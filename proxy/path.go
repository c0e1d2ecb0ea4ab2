package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// slash stands for an encoded slash (%2F) in a decoded path: it belongs to
// its segment and separates nothing. A decoded path holds no other NUL, since
// %00 is refused.
const slash = '\x00'

// rawTarget returns path and query of the request as the client sent them,
// byte for byte. The query keeps its question mark. Targets of other forms
// than RFC 9112's origin-form and absolute-form name no path.
func rawTarget(r *http.Request) (path, query string, ok bool) {
	target := r.RequestURI
	if target == "" { // made by hand, not read from a connection
		target = r.URL.RequestURI()
	}
	if !strings.HasPrefix(target, "/") {
		_, rest, absolute := strings.Cut(target, "://")
		if !absolute {
			return "", "", false
		}
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			return "/", "", true
		}
		target = rest[i:]
	}
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	} else {
		path = target
	}
	if path == "" {
		path = "/"
	}
	return path, query, true
}

// decodePath returns the form of a raw path on which routes are matched:
// percent-decoded once, with encoded slashes kept apart and repeated slashes
// as one. It refuses, with ok false, what backends are known to read as
// another path than it looks: dot segments plain, encoded or with parameters
// ("..;x" is ".." to some), also between encoded slashes, backslashes, NUL,
// fragments and broken escapes.
func decodePath(raw string) (path string, ok bool) {
	if !strings.HasPrefix(raw, "/") {
		return "", false
	}
	asItIs, before := true, byte(0)
	for i := range len(raw) {
		c := raw[i]
		switch c {
		case '\\', '#', 0:
			return "", false
		case '%', ';':
			asItIs = false
		case '/', '.':
			asItIs = asItIs && before != '/'
		}
		before = c
	}
	if asItIs { // as most paths are
		return raw, true
	}
	var b strings.Builder
	b.Grow(len(raw))
	for segment := range strings.SplitSeq(raw, "/") {
		if segment == "" {
			continue
		}
		decoded, err := url.PathUnescape(segment)
		if err != nil || strings.ContainsAny(decoded, "\\\x00") {
			return "", false
		}
		for part := range strings.SplitSeq(decoded, "/") {
			if name, _, _ := strings.Cut(part, ";"); name == "." || name == ".." {
				return "", false
			}
		}
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(decoded, "/", string(slash)))
	}
	if b.Len() == 0 || strings.HasSuffix(raw, "/") {
		b.WriteByte('/')
	}
	return b.String(), true
}

// readings returns the other paths that a backend may take a decoded path
// for: with its encoded slashes as separators, without the parameters of its
// segments (RFC 3986 section 3.3), and both, in either order.
func readings(path string) []string {
	slashed := strings.IndexByte(path, slash) >= 0
	if !slashed && strings.IndexByte(path, ';') < 0 {
		return nil
	}
	separated, bare := separate(path), withoutParameters(path)
	return []string{separated, bare, withoutParameters(separated), separate(bare)}
}

// separate makes separators of encoded slashes.
func separate(path string) string {
	return joinSegments(strings.ReplaceAll(path, string(slash), "/"))
}

// withoutParameters cuts the parameters off each segment.
func withoutParameters(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return joinSegments(strings.Join(segments, "/"))
}

// joinSegments makes one of repeated slashes.
func joinSegments(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// skipSegments returns what follows the first n segments of a raw path: empty
// or beginning with a slash.
func skipSegments(raw string, n int) string {
	for range n {
		raw = strings.TrimLeft(raw, "/")
		i := strings.IndexByte(raw, '/')
		if i < 0 {
			return ""
		}
		raw = raw[i:]
	}
	return raw
}

// upURI returns path and query as they are sent up: the client's own, byte for
// byte, without the first strip segments. The path is empty where nothing is
// left of it.
func upURI(r *http.Request, strip int) string {
	path, query, _ := rawTarget(r)
	return skipSegments(path, strip) + query
}

// behind puts a target's own path, which has no slash at its end, in front of
// what upURI returned.
func behind(base, uri string) string {
	if base == "" && !strings.HasPrefix(uri, "/") {
		base = "/"
	}
	return base + uri
}
