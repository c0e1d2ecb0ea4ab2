package token

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/stentproxy/stent/config"
)

// MaxSize bounds a token, in bytes: what is longer is not even parsed.
const MaxSize = 16 << 10

// Invalid says why a token is refused. Its text goes to the client, and holds
// nothing of the token.
type Invalid struct{ Reason string }

// Error implements error.
func (e *Invalid) Error() string { return "the token " + e.Reason }

func invalid(reason string) error { return &Invalid{reason} }

// ErrNoKeys says that nothing can be verified: the issuer's keys have never
// been reached.
var ErrNoKeys = errors.New("the keys that tokens are signed with are out of reach")

// keys are what a Verifier verifies with.
type keys interface {
	// find returns the keys that may have signed a token with a key id, which
	// is empty where the token names none.
	find(ctx context.Context, id string) ([]key, error)
	// renew looks for keys that have been added, and reports whether it is
	// worth to look again.
	renew(ctx context.Context) bool
}

// Verifier verifies the tokens of one plug.
type Verifier struct {
	algorithms []jose.SignatureAlgorithm
	keys       keys
	issuer     string
	audience   []string
	require    map[string][]string
	leeway     time.Duration
}

// Token is what a valid token says.
type Token struct {
	// Claims are all of them. Whole numbers are int64, others float64.
	Claims map[string]any
	// ID is the claim jti, or "".
	ID string
	// Expires is the claim exp; zero where there is none.
	Expires time.Time
}

// NewVerifier makes the verifier of a plug's options. It reads the file with
// the keys; those of a key set are fetched later. The set, which is nil where
// there is none, is the caller's to keep fresh.
func NewVerifier(c *config.JWTPlug, sets *Sets) (*Verifier, *Set, error) {
	v := &Verifier{issuer: c.Issuer, audience: c.Audience, require: c.Require, leeway: c.Leeway.Std()}
	for i, name := range c.Algorithms {
		alg := jose.SignatureAlgorithm(name)
		if _, known := algorithms[alg]; !known {
			return nil, nil, config.Within(fmt.Sprintf("algorithms[%d]", i), fmt.Errorf("unknown algorithm %q", name))
		}
		v.algorithms = append(v.algorithms, alg)
	}
	if len(v.algorithms) == 0 {
		return nil, nil, config.Within("algorithms", errors.New("no algorithms"))
	}
	if c.JWKS != nil {
		set, err := sets.Get(*c.JWKS)
		if err != nil {
			return nil, nil, config.Within("jwks", err)
		}
		v.keys = set
		return v, set, nil
	}
	if c.PublicKey == "" {
		v.keys = fixed{secretKey(c.Secret.Value())}
		return v, nil, v.checkKeys("secret")
	}
	text, err := os.ReadFile(c.PublicKey)
	if err != nil {
		return nil, nil, config.Within("public_key", fmt.Errorf("read the keys: %w", err))
	}
	list, err := parsePEM(text)
	if err != nil {
		return nil, nil, config.Within("public_key", fmt.Errorf("%s: %w", c.PublicKey, err))
	}
	v.keys = fixed(list)
	return v, nil, v.checkKeys("public_key")
}

// checkKeys refuses algorithms that no fixed key is for.
func (v *Verifier) checkKeys(at string) error {
	list, _ := v.keys.find(context.Background(), "")
	for _, alg := range v.algorithms {
		found := false
		for _, k := range list {
			found = found || k.suits(alg)
		}
		if !found {
			return config.Within(at, fmt.Errorf("there is no key for %s", alg))
		}
	}
	return nil
}

// Verify returns what a token says, or an *Invalid, or ErrNoKeys. It may wait
// for keys to be fetched.
func (v *Verifier) Verify(ctx context.Context, raw string) (*Token, error) {
	payload, err := v.verified(ctx, raw)
	if err != nil {
		return nil, err
	}
	return v.read(payload, time.Now())
}

// verified returns the payload of a token whose signature is good.
func (v *Verifier) verified(ctx context.Context, raw string) ([]byte, error) {
	switch {
	case len(raw) > MaxSize:
		return nil, invalid("is too long")
	case strings.ContainsFunc(raw, outsideCompact):
		// The decoder would overlook line ends.
		return nil, invalid("is malformed")
	}
	parsed, err := jose.ParseSignedCompact(raw, v.algorithms)
	if _, other := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); other {
		return nil, invalid("is signed with an algorithm that is not allowed")
	}
	if err != nil || len(parsed.Signatures) != 1 {
		return nil, invalid("is malformed")
	}
	header := parsed.Signatures[0].Protected
	if _, critical := header.ExtraHeaders["crit"]; critical {
		// No extension is understood (RFC 7515 section 4.1.11), nor may a
		// JWT have an unencoded payload (RFC 7797 section 7).
		return nil, invalid("has extensions that are not understood")
	}
	alg := jose.SignatureAlgorithm(header.Algorithm)
	for again := true; ; again = false {
		list, err := v.keys.find(ctx, header.KeyID)
		if err != nil {
			return nil, err
		}
		for _, k := range list {
			if !k.suits(alg) {
				continue
			}
			if payload, err := parsed.Verify(k.public); err == nil {
				return payload, nil
			}
		}
		if !again || !v.keys.renew(ctx) {
			return nil, invalid("is not signed with a key that is trusted")
		}
	}
}

// outsideCompact says whether c has no place in a compact serialization (RFC
// 7515 section 7.1).
func outsideCompact(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
}
