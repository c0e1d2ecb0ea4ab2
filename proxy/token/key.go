package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// key is one key that signatures are verified with.
type key struct {
	id string // kid; "" where it has none
	// algorithm is the only one that the key is for, where it says so.
	algorithm jose.SignatureAlgorithm
	public    any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// kind is what an algorithm asks of its keys.
type kind uint8

const (
	kindSecret kind = iota
	kindRSA
	kindP256
	kindP384
	kindP521
	kindEd25519
)

// algorithms are those that there are (RFC 7518 section 3.1, RFC 8037).
var algorithms = map[jose.SignatureAlgorithm]kind{
	jose.HS256: kindSecret, jose.HS384: kindSecret, jose.HS512: kindSecret,
	jose.RS256: kindRSA, jose.RS384: kindRSA, jose.RS512: kindRSA,
	jose.PS256: kindRSA, jose.PS384: kindRSA, jose.PS512: kindRSA,
	jose.ES256: kindP256, jose.ES384: kindP384, jose.ES512: kindP521,
	jose.EdDSA: kindEd25519,
}

// kindOf is what a key is good for; not ok where it is good for nothing.
func kindOf(public any) (k kind, ok bool) {
	switch public := public.(type) {
	case []byte:
		return kindSecret, true
	case *rsa.PublicKey:
		return kindRSA, public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return kindP256, true
		case elliptic.P384():
			return kindP384, true
		case elliptic.P521():
			return kindP521, true
		}
	case ed25519.PublicKey:
		return kindEd25519, len(public) == ed25519.PublicKeySize
	}
	return 0, false
}

// minRSA is the size below which RSA keys are not used (RFC 7518 section
// 3.3), in bits.
const minRSA = 2048

// suits says whether the key may have made a signature with alg.
func (k key) suits(alg jose.SignatureAlgorithm) bool {
	is, ok := kindOf(k.public)
	return ok && is == algorithms[alg] && (k.algorithm == "" || k.algorithm == alg)
}

// fixed are keys that don't change.
type fixed []key

func (f fixed) find(context.Context, string) ([]key, error) { return f, nil }
func (f fixed) renew(context.Context) bool                  { return false }

// maxHash is the size of the longest hash, in bytes.
const maxHash = 64

// secretKey is the key of a shared secret. HMAC fills a short one with zeros
// (RFC 2104 section 2), and so does this: the library refuses to. Whoever
// configures such a secret is warned.
func secretKey(secret string) key {
	filled := make([]byte, max(len(secret), maxHash))
	copy(filled, secret)
	return key{public: filled}
}

// parsePEM reads public keys and certificates.
func parsePEM(text []byte) ([]key, error) {
	var list []key
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		var public any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = cert.PublicKey
			}
		default:
			return nil, fmt.Errorf("holds a %s; want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", block.Type, err)
		}
		if _, ok := kindOf(public); !ok {
			return nil, fmt.Errorf("holds a key that no algorithm uses; want RSA of at least %d bits, P-256, P-384, P-521 or Ed25519", minRSA)
		}
		list = append(list, key{public: public})
	}
	if len(list) == 0 {
		return nil, errors.New("holds no PEM block")
	}
	return list, nil
}

// maxKeys bounds a published set: a signature may have to be tried with each.
const maxKeys = 64

// parseSet reads a JSON Web Key Set. Keys that are not understood, or not for
// signatures, are left out (RFC 7517 section 5), as are secrets, which have no
// place in what is published.
func parseSet(text []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("parse the key set: %w", err)
	}
	var list []key
	for _, raw := range set.Keys {
		var jwk jose.JSONWebKey
		if json.Unmarshal(raw, &jwk) != nil || !jwk.Valid() || !jwk.IsPublic() || jwk.Use != "" && jwk.Use != "sig" {
			continue
		}
		if k, ok := kindOf(jwk.Key); !ok || k == kindSecret {
			continue
		}
		if len(list) == maxKeys {
			return nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
		}
		list = append(list, key{id: jwk.KeyID, algorithm: jose.SignatureAlgorithm(jwk.Algorithm), public: jwk.Key})
	}
	if len(list) == 0 {
		return nil, errors.New("the key set has no key that can be used")
	}
	return list, nil
}
