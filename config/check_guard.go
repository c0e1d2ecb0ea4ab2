package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func (c *checker) forwardAuth(f ForwardAuthPlug, path string) {
	at := join(path, "url")
	switch u, err := url.Parse(f.URL); {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", !validHost(u.Hostname()):
		c.fail(at, "want a URL such as http://127.0.0.1:9100/verify")
	case u.User != nil:
		c.fail(at, "the URL holds no user or password")
	case u.Fragment != "":
		c.fail(at, "the URL holds no fragment")
	}
	if !httpguts.ValidHeaderFieldName(f.Method) {
		c.fail(join(path, "method"), "%q is no method", f.Method)
	}
	copied := make(map[string]bool)
	for i, name := range f.Headers {
		at := item(join(path, "headers"), i)
		c.headerName(name, at)
		c.ownHeader(name, at)
		copied[strings.ToLower(name)] = true
	}
	for i, name := range f.Set {
		at := item(join(path, "set"), i)
		c.headerName(name, at)
		c.ownHeader(name, at)
		if copied[strings.ToLower(name)] {
			c.fail(at, "what the service sets is dropped from clients, so %s can't be copied from them too", name)
		}
	}
	c.positive(float64(f.Timeout), join(path, "timeout"))
}

func (c *checker) basicAuth(b BasicAuthPlug, path string) {
	at := join(path, "users")
	if len(b.Users) == 0 {
		c.fail(at, "no users, such as {alice: \"${ALICE_PASSWORD}\"}")
	}
	for _, name := range slices.Sorted(maps.Keys(b.Users)) {
		at := join(at, name)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
			c.fail(at, "%q is no user's name", name)
		}
		c.password(b.Users[name].Value(), at)
	}
	if b.Realm == "" || !httpguts.ValidHeaderFieldValue(b.Realm) || strings.ContainsAny(b.Realm, "\"\\\t") {
		c.fail(join(path, "realm"), "want text without quotes and backslashes")
	}
}

// password checks what is kept of a password, without ever showing it.
func (c *checker) password(kept, path string) {
	switch {
	case kept == "":
		c.fail(path, "the password is empty")
	case strings.HasPrefix(kept, "{SHA}"), strings.HasPrefix(kept, "$apr1$"), strings.HasPrefix(kept, "$5$"), strings.HasPrefix(kept, "$6$"):
		c.fail(path, "of the hashes only bcrypt is known; make one with htpasswd -nB USER")
	}
}

func (c *checker) ip(p IPPlug, path string) {
	if len(p.Allow) == 0 && len(p.Deny) == 0 {
		c.fail(path, "no address range, such as {allow: [10.0.0.0/8]}")
	}
}

// leastSecret is the size of the hash that signs (RFC 2104 section 3).
const leastSecret = 32

func (c *checker) session(s SessionPlug, path string) {
	c.signing(s.Secret, join(path, "secret"))
	for i, old := range s.OldSecrets {
		c.signing(old, item(join(path, "old_secrets"), i))
	}
	c.cookieName(s.Cookie, join(path, "cookie"))
}

func (c *checker) signing(s Secret, path string) {
	if n := len(s.Value()); n < leastSecret {
		c.fail(path, "want at least %d bytes, as openssl rand -base64 32 makes them", leastSecret)
	}
}

func (c *checker) cookieName(name, path string) {
	if !httpguts.ValidHeaderFieldName(name) { // a token, too (RFC 6265 section 4.1.1)
		c.fail(path, "%q is no name of a cookie", name)
	}
}

func (c *checker) csrf(p CSRFPlug, path string) {
	c.headerName(p.Header, join(path, "header"))
	c.ownHeader(p.Header, join(path, "header"))
	c.cookieName(p.Cookie, join(path, "cookie"))
	if p.Query == "" {
		c.fail(join(path, "query"), "want the name of a parameter")
	}
}

func (c *checker) rate(p RatePlug, path string) {
	c.positive(p.PerSecond, join(path, "per_second"))
	c.limitKey(p.By, join(path, "by"))
}

func (c *checker) redirect(p RedirectPlug, path string) {
	known := []int{301, 302, 303, 307, 308}
	if !slices.Contains(known, p.Status) {
		c.fail(join(path, "status"), "%d is no redirect; want 301, 302, 303, 307 or 308", p.Status)
	}
	at := join(path, "to")
	_, rest, absolute := strings.Cut(p.To, "://")
	switch {
	case !httpguts.ValidHeaderFieldValue(p.To):
		c.fail(at, "the value holds a line end or another control character")
	case !absolute && !strings.HasPrefix(p.To, "/"), strings.HasPrefix(p.To, "//"),
		absolute && !redirectScheme(p.To), absolute && (rest == "" || rest[0] == '/'):
		c.fail(at, "want a path or a URL, such as /new or https://{host}{uri}")
	}
}

func redirectScheme(to string) bool {
	scheme, _, _ := strings.Cut(to, "://")
	return slices.Contains([]string{"http", "https", "{scheme}"}, scheme)
}

func (c *checker) static(p StaticPlug, path string) {
	if !strings.HasPrefix(p.At, "/") || hasDotSegment(p.At) || strings.ContainsAny(p.At, "*?#%\\") {
		c.fail(join(path, "at"), "want a path such as /assets")
	}
	if p.From == "" {
		c.fail(join(path, "from"), "want a folder")
	}
}

// sessions checks that a session plug comes before every plug that needs
// one, on the way of each route.
func (c *checker) sessions(flat []FlatRoute) {
	reported := make(map[string]bool)
	pass := func(stack []Plug, has bool) bool {
		for _, p := range stack {
			if p.Name == "session" {
				has = true
			}
			if at, needs := needsSession(p); needs && !has && !reported[at] {
				reported[at] = true
				c.fail(at, "no session plug comes before it on every way here")
			}
		}
		return has
	}
	front := pass(c.config.Endpoint, false)
	for _, f := range flat {
		has := front
		for _, name := range f.Pipelines {
			has = pass(c.config.Pipelines[name], has)
		}
	}
}

// needsSession says whether a plug reads the session, and where it says so.
func needsSession(p Plug) (at string, needs bool) {
	at = join(p.KeyPath, p.Name)
	switch options := p.Config.(type) {
	case *CSRFPlug:
		return at, true
	case *BasicAuthPlug:
		return join(at, "id"), strings.Contains(options.ID, "{session}")
	case *ForwardAuthPlug:
		return join(at, "id"), strings.Contains(options.ID, "{session}")
	}
	return "", false
}
