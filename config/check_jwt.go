package config

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func (c *checker) jwt(p *JWTPlug, path string) {
	c.jwtKey(p, path)
	c.jwtAlgorithms(p, path)
	c.jwtFrom(p, path)
	for _, claim := range slices.Sorted(maps.Keys(p.Require)) {
		if claim == "" {
			c.fail(join(path, "require"), "a claim has a name")
		}
	}
	if parts, err := ParseIDTemplate(p.ID); err != nil {
		c.fail(join(path, "id"), "%s", err)
	} else {
		for _, part := range parts {
			if !httpguts.ValidHeaderFieldValue(part.Text) {
				c.fail(join(path, "id"), "the template holds a control character")
			}
		}
	}
	c.jwtHeaders(p, path)
}

// jwtKey checks that there is one kind of key: with two it would depend on
// the token which of them decides.
func (c *checker) jwtKey(p *JWTPlug, path string) {
	kinds := 0
	for _, there := range []bool{p.Secret.Value() != "", p.PublicKey != "", p.JWKS != nil} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		c.fail(path, "want one of secret, public_key and jwks, got %s", [...]string{"none", "", "two", "all three"}[kinds])
	}
	if p.JWKS == nil {
		return
	}
	at := join(path, "jwks")
	u, err := url.Parse(p.JWKS.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		c.fail(c.jwksKey(at), "want a URL such as https://issuer.example.com/.well-known/jwks.json")
	case u.User != nil:
		c.fail(c.jwksKey(at), "the URL holds no user or password")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		c.warn(c.jwksKey(at), "keys that come over plain http can be exchanged on the way")
	}
	c.positive(float64(p.JWKS.Refresh), join(at, "refresh"))
	c.positive(float64(p.JWKS.Cooldown), join(at, "cooldown"))
	c.positive(float64(p.JWKS.Timeout), join(at, "timeout"))
}

// jwksKey is the key of the URL, which may stand for the whole map.
func (c *checker) jwksKey(at string) string {
	if s := c.config.source; s != nil {
		if _, ok := s.keys[join(at, "url")]; !ok {
			return at
		}
	}
	return join(at, "url")
}

func (c *checker) jwtAlgorithms(p *JWTPlug, path string) {
	at := join(path, "algorithms")
	if len(p.Algorithms) == 0 {
		c.fail(at, "no algorithms, such as [RS256]")
	}
	for i, name := range p.Algorithms {
		switch {
		case strings.EqualFold(name, "none"):
			c.fail(item(at, i), "a token that is not signed proves nothing")
		case !slices.Contains(jwtAlgorithms, name):
			c.fail(item(at, i), "unknown algorithm %q; want %s", name, oneOf(jwtAlgorithms)).suggestion = suggest(name, jwtAlgorithms)
		case SecretAlgorithm(name) && p.Secret.Value() == "" && (p.PublicKey != "" || p.JWKS != nil):
			c.fail(item(at, i), "%s needs a secret: with a public key everybody could sign", name)
		case !SecretAlgorithm(name) && p.Secret.Value() != "":
			c.fail(item(at, i), "%s needs public_key or jwks, not a secret", name)
		case SecretAlgorithm(name):
			bits, _ := strconv.Atoi(name[2:])
			if n := len(p.Secret.Value()); n > 0 && n < bits/8 {
				c.warn(join(path, "secret"), "%s asks for a secret of at least %d bytes (RFC 7518 section 3.2); a shorter one can be guessed", name, bits/8)
			}
		}
	}
}

func (c *checker) jwtFrom(p *JWTPlug, path string) {
	at := join(path, "from")
	if len(p.From) == 0 {
		c.fail(at, "no places, such as [header:Authorization, query:token]")
	}
	for i, s := range p.From {
		source, err := ParseTokenSource(s)
		switch {
		case err != nil:
			c.fail(item(at, i), "%s", err)
		case source.Kind == FromHeader:
			c.headerName(source.Name, item(at, i))
			if !strings.EqualFold(source.Name, "authorization") {
				c.ownHeader(source.Name, item(at, i))
			}
		case source.Kind == FromCookie && !httpguts.ValidHeaderFieldName(source.Name):
			c.fail(item(at, i), "%q is no name of a cookie", source.Name)
		}
	}
}

func (c *checker) jwtHeaders(p *JWTPlug, path string) {
	at := join(path, "headers")
	c.headers(p.Headers, at)
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		if p.Headers[name] == "" {
			c.fail(join(at, name), "want the name of a claim")
		}
		if strings.EqualFold(name, "cookie") {
			c.fail(join(at, name), "no client could send a cookie any more")
		}
		for _, from := range p.From {
			if source, err := ParseTokenSource(from); err == nil && source.Kind == FromHeader && strings.EqualFold(source.Name, name) {
				c.fail(join(at, name), "is where the token is; a header that a plug sets is taken from no client")
			}
		}
	}
}
