// Package tokentest signs tokens, and publishes keys, for tests.
package tokentest

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Secret is long enough for HS256.
const Secret = "a secret of 32 bytes, not better"

// Claims are those of a token.
type Claims = map[string]any

// Sign signs claims; kid may be empty. The key is a []byte or a private key.
func Sign(t testing.TB, alg string, key any, kid string, claims any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return SignBytes(t, alg, key, kid, payload)
}

// SignBytes signs what need not be claims.
func SignBytes(t testing.TB, alg string, key any, kid string, payload []byte) string {
	t.Helper()
	var options jose.SignerOptions
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, &options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// HS256 signs claims with Secret.
func HS256(t testing.TB, claims any) string { return Sign(t, "HS256", []byte(Secret), "", claims) }

// Raw puts the parts of a token together as they are.
func Raw(header, payload string, signature []byte) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload)) + "." + enc.EncodeToString(signature)
}

// Issuer publishes a key set.
type Issuer struct {
	URL     string
	Fetches atomic.Int64

	mu     sync.Mutex
	answer http.HandlerFunc
}

// NewIssuer starts an issuer that publishes nothing until Publish.
func NewIssuer(t testing.TB) *Issuer {
	i := &Issuer{}
	i.Fail(http.StatusNotFound)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.Fetches.Add(1)
		i.mu.Lock()
		answer := i.answer
		i.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(srv.Close)
	i.URL = srv.URL
	return i
}

// Serve changes what the issuer answers.
func (i *Issuer) Serve(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

// Fail makes the issuer answer a status.
func (i *Issuer) Fail(status int) {
	i.Serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// Publish makes the issuer answer the public keys, by key id.
func (i *Issuer) Publish(t testing.TB, keys map[string]crypto.PublicKey) {
	t.Helper()
	var set jose.JSONWebKeySet
	for id, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key, KeyID: id, Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	i.Serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
}
