package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// JWTPlug admits only requests with a valid JSON Web Token (RFC 7519), with
// 401 otherwise, and ends their sessions when it expires or is revoked.
type JWTPlug struct {
	// Algorithms are those that a token may be signed with: HS256, RS256,
	// PS256, ES256, their kin with 384 and 512, and EdDSA.
	Algorithms []string `yaml:"algorithms" required:"true"`
	// Secret is the key of HS256, HS384 and HS512.
	Secret Secret `yaml:"secret"`
	// PublicKey is a PEM file of public keys or certificates.
	PublicKey string `yaml:"public_key" path:"true"`
	// JWKS says where public keys are published, as a URL or a map.
	JWKS *JWKS `yaml:"jwks"`
	// From are the places of the token, the first that has one counts:
	// header:NAME, query:NAME, cookie:NAME, or protocol for
	// Sec-WebSocket-Protocol.
	From []string `yaml:"from"`
	// Issuer is what the claim iss must be; empty is anything.
	Issuer string `yaml:"issuer"`
	// Audience are the names of which the claim aud must have one.
	Audience []string `yaml:"audience"`
	// Require maps claims that must be there to the values that they may
	// have; an empty list is any.
	Require map[string][]string `yaml:"require"`
	// Leeway is how far the issuer's clock may be off.
	Leeway Duration `yaml:"leeway"`
	// Grace is how long a session goes on after its token has expired.
	Grace Duration `yaml:"grace"`
	// ID is the template of the socket id, such as "user_socket:{sub}".
	ID string `yaml:"id"`
	// Headers maps headers that are sent up to the claims that they carry.
	Headers map[string]string `yaml:"headers"`
	// RemoveToken keeps the token from the upstream.
	RemoveToken bool `yaml:"remove_token"`
}

// JWKS is a JSON Web Key Set (RFC 7517) that an issuer publishes.
type JWKS struct {
	// URL is where the set is; https, or http inside a network that is
	// trusted.
	URL string `yaml:"url" required:"true"`
	// Refresh is how often it is fetched anew.
	Refresh Duration `yaml:"refresh"`
	// Cooldown is the least time before a token with an unknown key has the
	// set fetched once more.
	Cooldown Duration `yaml:"cooldown"`
	// Timeout bounds a fetch, and how long a client waits for one.
	Timeout Duration `yaml:"timeout"`
	// CA is a PEM file of authorities to trust instead of the system's.
	CA string `yaml:"ca" path:"true"`
}

func (j *JWKS) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case kindString:
		j.URL = n.text
	case kindMap:
		d.structure(n, reflect.ValueOf(j).Elem(), path)
	default:
		d.mismatch(n, path, "a URL or {url, refresh, cooldown, timeout, ca}")
	}
}

// The places of a token.
const (
	FromHeader   = "header"
	FromQuery    = "query"
	FromCookie   = "cookie"
	FromProtocol = "protocol"
)

// TokenSource is one place of a token.
type TokenSource struct {
	Kind string // one of the constants above
	Name string // of the header, query parameter or cookie
}

// ParseTokenSource reads an entry of From.
func ParseTokenSource(s string) (TokenSource, error) {
	kind, name, named := strings.Cut(s, ":")
	switch kind {
	case FromProtocol:
		if named {
			return TokenSource{}, errors.New("protocol takes no name")
		}
		return TokenSource{Kind: kind}, nil
	case FromHeader, FromQuery, FromCookie:
		if name == "" {
			return TokenSource{}, fmt.Errorf("%s lacks a name: write %s:NAME", kind, kind)
		}
		return TokenSource{kind, name}, nil
	}
	return TokenSource{}, fmt.Errorf("%q is no place of a token; want header:NAME, query:NAME, cookie:NAME or protocol", s)
}

// IDPart is a piece of a socket id's template: text, or a name that stands for
// what is known of the client, such as a claim.
type IDPart struct{ Text, Name string }

// ParseIDTemplate takes a template such as "user_socket:{sub}" apart.
func ParseIDTemplate(template string) ([]IDPart, error) {
	var parts []IDPart
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, errors.New("a } without its {")
		}
		if text != "" {
			parts = append(parts, IDPart{Text: text})
		}
		if !found {
			break
		}
		name, next, closed := strings.Cut(after, "}")
		if !closed || name == "" || strings.Contains(name, "{") {
			return nil, errors.New("want a name between { and }")
		}
		parts = append(parts, IDPart{Name: name})
		rest = next
	}
	if len(parts) > 0 && !slices.ContainsFunc(parts, func(p IDPart) bool { return p.Name != "" }) {
		return nil, errors.New("without a name in {} all clients would share one id")
	}
	return parts, nil
}

// jwtAlgorithms are those of RFC 7518 section 3.1 and RFC 8037, without none.
var jwtAlgorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA",
}

// SecretAlgorithm reports whether an algorithm's key is a secret that issuer
// and stent share.
func SecretAlgorithm(name string) bool { return strings.HasPrefix(name, "HS") }
