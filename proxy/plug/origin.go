package plug

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/stentproxy/stent/config"
)

// origin admits requests by their Origin field (RFC 6454). Browsers send it
// with every WebSocket handshake and don't let pages change it, which makes
// it the defence against cross-site WebSocket hijacking. Others get 403.
func origin(c *config.OriginPlug, _ Env) (Compiled, error) {
	var rule originRule
	for i, s := range *c {
		if err := rule.add(s); err != nil {
			return Compiled{}, config.Within(fmt.Sprintf("[%d]", i), err)
		}
	}
	refusal := &Problem{Status: http.StatusForbidden, Detail: "requests from this origin are not admitted"}
	return Compiled{Reads: []string{"Origin"}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !rule.admits(r.Header["Origin"], From(r).Host) {
				refusal.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// originRule is a compiled list of origins.
type originRule struct {
	any, same, none bool
	patterns        []originPattern
}

// originPattern is "scheme://host:port". The host may begin with "*.", for
// all its subdomains at any depth, and the scheme may be missing ("//host"),
// for all schemes.
type originPattern struct{ scheme, host, port string }

func (o *originRule) add(s string) error {
	switch s {
	case "*":
		o.any = true
	case "same":
		o.same = true
	case "none":
		o.none = true
	default:
		p, ok := parseOrigin(s)
		if !ok || strings.Contains(strings.TrimPrefix(p.host, "*."), "*") {
			return fmt.Errorf(`%q is neither an origin ("https://example.com", "https://*.example.com") nor one of same, none, *`, s)
		}
		o.patterns = append(o.patterns, p)
	}
	return nil
}

// admits judges the Origin field lines of a request for host.
func (o *originRule) admits(lines []string, host string) bool {
	if o.any {
		return true
	}
	if len(lines) == 0 {
		return o.none
	}
	if len(lines) > 1 {
		return false // a browser sends one; which of them the backend reads is anybody's guess
	}
	from, ok := parseOrigin(lines[0])
	if !ok || from.scheme == "" || strings.Contains(from.host, "*") {
		return false // among them "null", a document without an origin
	}
	if o.same && from.isHost(host) {
		return true
	}
	for _, p := range o.patterns {
		if p.matches(from) {
			return true
		}
	}
	return false
}

func (p originPattern) matches(from originPattern) bool {
	if p.scheme == "" {
		if p.port == "" {
			p.port = defaultPort(from.scheme)
		}
	} else if p.scheme != from.scheme {
		return false
	}
	if p.port != from.port {
		return false
	}
	if suffix, ok := strings.CutPrefix(p.host, "*"); ok {
		return strings.HasSuffix(from.host, suffix) && len(from.host) > len(suffix)
	}
	return p.host == from.host
}

// isHost says whether the origin is that of a page served from host. Schemes
// are not compared: TLS may end before stent, unknown to it.
func (p originPattern) isHost(host string) bool {
	name, port := splitHostPort(strings.ToLower(host))
	if port == "" {
		port = defaultPort(p.scheme)
	}
	return name != "" && name == p.host && port == p.port
}

// parseOrigin reads scheme://host[:port] or //host[:port], nothing more; the
// port of a known scheme is filled in.
func parseOrigin(s string) (originPattern, bool) {
	scheme, authority, ok := strings.Cut(strings.ToLower(s), "//")
	if !ok || authority == "" || strings.ContainsAny(authority, "/?#@\\ ") {
		return originPattern{}, false
	}
	if scheme != "" {
		if scheme, ok = strings.CutSuffix(scheme, ":"); !ok || scheme == "" {
			return originPattern{}, false
		}
	}
	host, port := splitHostPort(authority)
	if host == "" {
		return originPattern{}, false
	}
	if port == "" {
		port = defaultPort(scheme)
	}
	return originPattern{scheme, host, port}, true
}

// splitHostPort splits host[:port]; an IPv6 address keeps its brackets.
func splitHostPort(s string) (host, port string) {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http", "ws":
		return "80"
	case "https", "wss":
		return "443"
	}
	return ""
}
