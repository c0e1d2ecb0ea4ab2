package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// testKeys are made once: RSA keys take their time.
var testKeys = sync.OnceValue(func() (k struct {
	rsa, otherRSA    *rsa.PrivateKey
	p256, p384, p521 *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.otherRSA, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.p256, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.p521, _ = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

// pemFile writes public keys into a file.
func pemFile(t testing.TB, keys ...crypto.PublicKey) (path string, text []byte) {
	t.Helper()
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	path = filepath.Join(t.TempDir(), "keys.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, text
}

func newVerifier(t testing.TB, c config.JWTPlug) *Verifier {
	t.Helper()
	v, _, err := NewVerifier(&c, NewSets(nil))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// in is a NumericDate d from now.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// Each algorithm admits what is signed with it, and nothing that is signed
// with another.
func TestAlgorithms(t *testing.T) {
	k := testKeys()
	path, _ := pemFile(t, &k.rsa.PublicKey, &k.p256.PublicKey, &k.p384.PublicKey, &k.p521.PublicKey, k.ed.Public())
	long := strings.Repeat("x", 64)
	signers := map[string]any{
		"HS256": []byte(long), "HS384": []byte(long), "HS512": []byte(long),
		"RS256": k.rsa, "RS384": k.rsa, "RS512": k.rsa, "PS256": k.rsa, "PS384": k.rsa, "PS512": k.rsa,
		"ES256": k.p256, "ES384": k.p384, "ES512": k.p521, "EdDSA": k.ed,
	}
	if len(signers) != len(algorithms) {
		t.Errorf("%d algorithms are tested of %d", len(signers), len(algorithms))
	}
	for allowed := range signers {
		c := config.JWTPlug{Algorithms: []string{allowed}, PublicKey: path}
		if config.SecretAlgorithm(allowed) {
			c.PublicKey, c.Secret = "", config.NewSecret(long)
		}
		v := newVerifier(t, c)
		for used, key := range signers {
			got, err := v.Verify(t.Context(), tokentest.Sign(t, used, key, "", tokentest.Claims{"sub": "42"}))
			if used == allowed {
				if err != nil || got.Claims["sub"] != "42" {
					t.Errorf("%s where it is allowed: got %v, %v", used, got, err)
				}
			} else if !refused(err, "algorithm") {
				t.Errorf("%s where %s is allowed: got %v", used, allowed, err)
			}
		}
	}
}

func refused(err error, about string) bool {
	bad, ok := errors.AsType[*Invalid](err)
	return ok && strings.Contains(bad.Reason, about)
}

// What attackers try.
func TestAttacks(t *testing.T) {
	k := testKeys()
	path, pemText := pemFile(t, &k.rsa.PublicKey)
	der, _ := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	rs := newVerifier(t, config.JWTPlug{Algorithms: []string{"RS256", "ES256"}, PublicKey: mixed(t)})
	onlyRS := newVerifier(t, config.JWTPlug{
		Algorithms: []string{"RS256"}, PublicKey: path, Issuer: "https://issuer.test", Audience: []string{"chat", "live"},
		Require: map[string][]string{"sub": nil, "role": {"admin", "7"}}, Leeway: config.Duration(10 * time.Second),
	})
	hs := newVerifier(t, config.JWTPlug{Algorithms: []string{"HS256"}, Secret: config.NewSecret(tokentest.Secret)})
	good := func(change func(tokentest.Claims)) string {
		c := tokentest.Claims{
			"iss": "https://issuer.test", "aud": "chat", "sub": "42", "role": "admin", "exp": in(time.Minute), "jti": "t1",
		}
		if change != nil {
			change(c)
		}
		return tokentest.Sign(t, "RS256", k.rsa, "", c)
	}
	without := func(name string) string { return good(func(c tokentest.Claims) { delete(c, name) }) }
	with := func(name string, value any) string { return good(func(c tokentest.Claims) { c[name] = value }) }
	hmacOver := func(header, payload string, key []byte) string {
		enc := base64.RawURLEncoding
		input := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(input))
		return input + "." + enc.EncodeToString(mac.Sum(nil))
	}
	fine := good(nil)
	parts := strings.Split(fine, ".")
	payload := `{"iss":"https://issuer.test","aud":"chat","sub":"42","role":"admin"}`

	for _, tt := range []struct {
		name  string
		v     *Verifier
		token string
		about string // of the refusal; "" is admitted
	}{
		{"a good one", onlyRS, fine, ""},
		{"an audience among several", onlyRS, with("aud", []string{"other", "live"}), ""},
		{"a role among several", onlyRS, with("role", []string{"editor", "admin"}), ""},
		{"a role that is a number", onlyRS, with("role", 7), ""},
		{"expired within the leeway", onlyRS, with("exp", in(-5*time.Second)), ""},
		{"not before within the leeway", onlyRS, with("nbf", in(5*time.Second)), ""},
		{"a date with a fraction", onlyRS, with("exp", float64(in(time.Minute))+0.5), ""},
		{"no expiry", onlyRS, without("exp"), ""},

		{"HS256 with the public key's PEM as secret", onlyRS, hmacOver(`{"alg":"HS256","typ":"JWT"}`, payload, pemText), "algorithm"},
		{"HS256 with the public key's DER as secret", onlyRS, hmacOver(`{"alg":"HS256"}`, payload, der), "algorithm"},
		{"RS256 that is an HMAC", onlyRS, hmacOver(`{"alg":"RS256"}`, payload, pemText), "trusted"},
		{"RS256 where a secret is configured", hs, tokentest.Sign(t, "RS256", k.rsa, "", tokentest.Claims{}), "algorithm"},
		{"ES256 signed by nobody, beside an RSA key", rs, tokentest.Raw(`{"alg":"ES256"}`, payload, make([]byte, 64)), "trusted"},
		{"none", onlyRS, tokentest.Raw(`{"alg":"none"}`, payload, nil), "algorithm"},
		{"None", onlyRS, tokentest.Raw(`{"alg":"None"}`, payload, nil), "algorithm"},
		{"none with a signature", onlyRS, tokentest.Raw(`{"alg":"none"}`, payload, []byte("x")), "algorithm"},
		{"no alg", onlyRS, tokentest.Raw(`{}`, payload, nil), "algorithm"},
		{"an alg that is a list", onlyRS, tokentest.Raw(`{"alg":["RS256"]}`, payload, nil), ""},
		{"two algs", onlyRS, tokentest.Raw(`{"alg":"RS256","alg":"none"}`, payload, nil), "malformed"},
		{"an empty secret", hs, hmacOver(`{"alg":"HS256"}`, payload, nil), "trusted"},
		{"another secret", hs, hmacOver(`{"alg":"HS256"}`, payload, []byte("guess")), "trusted"},
		{"another key", onlyRS, tokentest.Sign(t, "RS256", k.otherRSA, "", tokentest.Claims{}), "trusted"},
		{"its own key in the header", onlyRS, embedded(t), "trusted"},
		{"an extension", onlyRS, tokentest.Raw(`{"alg":"RS256","crit":["exp"],"exp":1}`, payload, []byte("x")), "extensions"},
		{"a payload that is not encoded", onlyRS, tokentest.Raw(`{"alg":"RS256","crit":["b64"],"b64":false}`, payload, []byte("x")), "extensions"},

		{"other claims under a good signature", onlyRS, parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + parts[2], "trusted"},
		{"no signature", onlyRS, parts[0] + "." + parts[1] + ".", "trusted"},
		{"half a signature", onlyRS, fine[:len(fine)-20], "trusted"},
		{"a line end inside", onlyRS, fine[:20] + "\n" + fine[20:], "malformed"},
		{"padding", onlyRS, parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		{"a part more", onlyRS, fine + ".x", "malformed"},
		{"two parts", onlyRS, parts[0] + "." + parts[1], "malformed"},
		{"a JWS in JSON", onlyRS, `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "malformed"},
		{"an encrypted one", onlyRS, "a.b.c.d.e", "malformed"},
		{"nothing", onlyRS, "", "malformed"},
		{"a huge one", onlyRS, strings.Repeat("a", MaxSize+1), "too long"},
		{"huge claims", onlyRS, with("x", strings.Repeat("a", MaxSize)), "too long"},
		{"deep claims", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", []byte(strings.Repeat(`{"a":`, 1900))), "malformed"},

		{"expired", onlyRS, with("exp", in(-11*time.Second)), "expired"},
		{"expired long ago", onlyRS, with("exp", -1e300), "expired"},
		{"an expiry that is text", onlyRS, with("exp", "99999999999"), "proper exp"},
		{"an expiry that is null", onlyRS, with("exp", nil), "proper exp"},
		{"a list of expiries", onlyRS, with("exp", []int64{in(time.Hour)}), "proper exp"},
		{"not before tomorrow", onlyRS, with("nbf", in(24*time.Hour)), "not valid yet"},
		{"not before the end of time", onlyRS, with("nbf", 1e300), "not valid yet"},
		{"not before text", onlyRS, with("nbf", "0"), "proper nbf"},
		{"another issuer", onlyRS, with("iss", "https://issuer.test.evil.test"), "issuer"},
		{"a list of issuers", onlyRS, with("iss", []string{"https://issuer.test"}), "issuer"},
		{"no issuer", onlyRS, without("iss"), "issuer"},
		{"another audience", onlyRS, with("aud", []string{"shop", "Chat"}), "audience"},
		{"an audience inside another", onlyRS, with("aud", "chat live"), "audience"},
		{"no audience", onlyRS, without("aud"), "audience"},
		{"a required claim less", onlyRS, without("sub"), "required"},
		{"a required claim that is null", onlyRS, with("sub", nil), "required"},
		{"another role", onlyRS, with("role", "user"), "required"},
		{"a role that is an object", onlyRS, with("role", map[string]any{"admin": true}), "required"},
		{"a jti that is a number", onlyRS, with("jti", 7), "jti"},
		{"a claim twice", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", []byte(strings.Replace(payload, `"sub"`, `"sub":"1","sub"`, 1))), "malformed"},
		{"claims that are a list", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", []byte(`[]`)), "malformed"},
		{"claims that are null", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", []byte(`null`)), "malformed"},
		{"claims and more", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", []byte(payload+`}`)), "malformed"},
		{"no claims", onlyRS, tokentest.SignBytes(t, "RS256", k.rsa, "", nil), "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.v.Verify(t.Context(), tt.token)
			switch {
			case tt.name == "an alg that is a list":
				if !refused(err, "") {
					t.Errorf("got %v, %v", got, err)
				}
			case tt.about == "":
				if err != nil || got.ID != "t1" {
					t.Errorf("got %v, %v", got, err)
				}
			case !refused(err, tt.about):
				t.Errorf("got %v, %v; want a refusal about %q", got, err, tt.about)
			}
			if err != nil && len(tt.token) > 10 && strings.Contains(err.Error(), tt.token[:10]) {
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

// mixed is a file with an RSA and an EC key.
func mixed(t *testing.T) string {
	k := testKeys()
	path, _ := pemFile(t, &k.rsa.PublicKey, &k.p256.PublicKey)
	return path
}

// embedded is signed with a key that it brings along.
func embedded(t *testing.T) string {
	k := testKeys()
	n := base64.RawURLEncoding.EncodeToString(k.otherRSA.N.Bytes())
	header := `{"alg":"RS256","jwk":{"kty":"RSA","e":"AQAB","n":"` + n + `"},"jku":"http://127.0.0.1:1/","kid":"own"}`
	input := tokentest.Raw(header, `{}`, nil)
	input = input[:len(input)-1]
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k.otherRSA, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Whole numbers stay what they are, also beyond what a float64 holds.
func TestNumbersAreExact(t *testing.T) {
	v := newVerifier(t, config.JWTPlug{Algorithms: []string{"HS256"}, Secret: config.NewSecret(tokentest.Secret)})
	got, err := v.Verify(t.Context(), tokentest.HS256(t, tokentest.Claims{"sub": int64(9007199254740993), "share": 0.5}))
	if err != nil || got.Claims["sub"] != int64(9007199254740993) || got.Claims["share"] != 0.5 {
		t.Errorf("got %v, %v", got, err)
	}
}

// A short secret works as HMAC says, where the operator insists.
func TestShortSecret(t *testing.T) {
	v := newVerifier(t, config.JWTPlug{Algorithms: []string{"HS256"}, Secret: config.NewSecret("short")})
	input := strings.TrimSuffix(tokentest.Raw(`{"alg":"HS256"}`, `{"sub":"1"}`, nil), ".")
	mac := hmac.New(sha256.New, []byte("short"))
	mac.Write([]byte(input))
	if _, err := v.Verify(t.Context(), input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil))); err != nil {
		t.Error(err)
	}
}

func TestBadKeys(t *testing.T) {
	k := testKeys()
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	ecOnly, _ := pemFile(t, &k.p256.PublicKey)
	weak, _ := pemFile(t, &small.PublicKey)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "x.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, _ := x509.MarshalPKCS8PrivateKey(k.ed)
	for name, tt := range map[string]struct {
		c    config.JWTPlug
		path string
	}{
		"a key of another kind": {config.JWTPlug{Algorithms: []string{"ES256", "RS256"}, PublicKey: ecOnly}, "public_key"},
		"a weak key":            {config.JWTPlug{Algorithms: []string{"RS256"}, PublicKey: weak}, "public_key"},
		"no such file":          {config.JWTPlug{Algorithms: []string{"RS256"}, PublicKey: "nowhere.pem"}, "public_key"},
		"no PEM":                {config.JWTPlug{Algorithms: []string{"RS256"}, PublicKey: file("key")}, "public_key"},
		"a private key": {config.JWTPlug{Algorithms: []string{"EdDSA"}, PublicKey: file(string(
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))}, "public_key"},
		"a broken key": {config.JWTPlug{Algorithms: []string{"EdDSA"}, PublicKey: file(string(
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})))}, "public_key"},
		"a secret for RS256":    {config.JWTPlug{Algorithms: []string{"RS256"}, Secret: config.NewSecret("x")}, "secret"},
		"no algorithm":          {config.JWTPlug{Secret: config.NewSecret("x")}, "algorithms"},
		"none":                  {config.JWTPlug{Algorithms: []string{"none"}, Secret: config.NewSecret("x")}, "algorithms[0]"},
		"no URL":                {config.JWTPlug{Algorithms: []string{"RS256"}, JWKS: &config.JWKS{URL: "x"}}, "jwks.url"},
		"no such authorities":   {config.JWTPlug{Algorithms: []string{"RS256"}, JWKS: &config.JWKS{URL: "https://x", CA: "nowhere"}}, "jwks.ca"},
		"authorities of nobody": {config.JWTPlug{Algorithms: []string{"RS256"}, JWKS: &config.JWKS{URL: "https://x", CA: file("")}}, "jwks.ca"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := NewVerifier(&tt.c, NewSets(nil))
			if key, ok := errors.AsType[*config.KeyError](err); !ok || key.Path != tt.path {
				t.Errorf("got %v, want an error at %s", err, tt.path)
			}
		})
	}
}

// A certificate stands for its key, and keys of several kinds may be in one
// file.
func TestCertificate(t *testing.T) {
	k := testKeys()
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &k.p256.PublicKey, k.p256)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)})...)
	list, err := parsePEM(text)
	if err != nil || len(list) != 2 || !list[0].suits("ES256") || !list[1].suits("PS512") {
		t.Errorf("got %v, %v", list, err)
	}
}

var certificate = &x509.Certificate{SerialNumber: big.NewInt(1)}

// FuzzVerify checks that no token without a good signature is admitted, and
// that none brings the verifier down.
func FuzzVerify(f *testing.F) {
	k := testKeys()
	path, pemText := pemFile(f, &k.rsa.PublicKey, &k.p256.PublicKey, k.ed.Public())
	v := newVerifier(f, config.JWTPlug{Algorithms: []string{"RS256", "PS256", "ES256", "EdDSA"}, PublicKey: path})
	f.Add(tokentest.Sign(f, "RS256", k.otherRSA, "kid", tokentest.Claims{"sub": "1"}))
	f.Add(tokentest.Sign(f, "HS256", pemText, "", tokentest.Claims{"exp": 1}))
	f.Add(tokentest.Raw(`{"alg":"none"}`, `{}`, nil))
	f.Add(tokentest.Raw(`{"alg":"EdDSA","crit":["b64"],"b64":false}`, `{}`, make([]byte, 64)))
	f.Fuzz(func(t *testing.T, raw string) {
		if got, err := v.Verify(t.Context(), raw); err == nil {
			t.Errorf("admitted with %v", got.Claims)
		}
	})
}

// FuzzClaims checks that what a signed payload may hold never makes a panic,
// nor an expiry that is over.
func FuzzClaims(f *testing.F) {
	v := &Verifier{issuer: "i", audience: []string{"a"}, require: map[string][]string{"r": {"1"}}, leeway: time.Second}
	f.Add([]byte(`{"iss":"i","aud":["a"],"r":1,"exp":1e400,"nbf":-1,"jti":"x"}`))
	f.Add([]byte(`{"iss":"i","aud":"a","r":[[1],1],"exp":99999999999999999999}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		now := time.Unix(1e9, 0)
		if got, err := v.read(payload, now); err == nil && !got.Expires.IsZero() && !got.Expires.After(now.Add(-time.Second)) {
			t.Errorf("admitted until %v", got.Expires)
		}
	})
}

// FuzzParseSet checks that what is published can't bring anything down, nor
// smuggle a secret in.
func FuzzParseSet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null,7,{"x5c":["AA"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseSet(text)
		if err == nil && len(list) == 0 {
			t.Error("an empty set")
		}
		for _, k := range list {
			if kind, ok := kindOf(k.public); !ok || kind == kindSecret {
				t.Errorf("a key that is a %T", k.public)
			}
		}
	})
}

// FuzzParsePEM checks that no file of keys brings anything down.
func FuzzParsePEM(f *testing.F) {
	_, text := pemFile(f, &testKeys().p256.PublicKey)
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parsePEM(text)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("%d keys, %v", len(list), err)
		}
	})
}
