package longpoll

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// token names a session so that only whoever was told can use it: its key,
// which logs and backends know, and a MAC over that, which they don't.
func (t *Table) token(key string) string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(key)) + "." + base64.RawURLEncoding.EncodeToString(t.mac(key))
}

// verify returns the key that a token of this process was made of.
func (t *Table) verify(token string) (key string, ok bool) {
	if len(token) > maxToken {
		return "", false
	}
	token, ok = strings.CutPrefix(token, tokenPrefix)
	name, mac, cut := strings.Cut(token, ".")
	if !ok || !cut {
		return "", false
	}
	k, err := base64.RawURLEncoding.Strict().DecodeString(name)
	if err != nil {
		return "", false
	}
	m, err := base64.RawURLEncoding.Strict().DecodeString(mac)
	if err != nil || !hmac.Equal(m, t.mac(string(k))) {
		return "", false
	}
	return string(k), true
}

// tokenPrefix tells our tokens from those of other makers.
const tokenPrefix = "stent-lp."

// maxToken is longer than any token that was given out.
const maxToken = 256

func (t *Table) mac(key string) []byte {
	h := hmac.New(sha256.New, t.secret[:])
	h.Write([]byte(key)) // a Hash never fails
	return h.Sum(nil)
}
