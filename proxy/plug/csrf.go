package plug

import (
	"crypto/hmac"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"

	"github.com/stentproxy/stent/config"
)

// csrf admits handshakes, and requests whose method may change something,
// only with the token of their browser's session. The token is a signature of
// the session's name: another session's does not fit, and one that somebody
// has planted in a cookie is never believed, since the cookie is only where
// pages read theirs. Others get 403.
func csrf(c *config.CSRFPlug, _ Env) (Compiled, error) {
	if err := checkField(c.Header); err != nil {
		return Compiled{}, config.Within("header", err)
	}
	header := http.CanonicalHeaderKey(c.Header)
	refusal := &Problem{
		Status: http.StatusForbidden,
		Detail: "the request lacks the token of its session, in the parameter " + c.Query + " or the header " + header,
	}
	return Compiled{Reads: []string{"Cookie", header}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := From(r)
			if info.session != nil {
				giveToken(r, info, c.Cookie)
			}
			if (AsksWebSocket(r) || !safe(r.Method)) && !info.session.hasToken(tokensOf(r, c.Query, header)) {
				refusal.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// safe says whether a method changes nothing (RFC 9110 section 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// tokensOf returns what a request gives as its token.
func tokensOf(r *http.Request, query, header string) []string {
	// What does not parse holds no token, either.
	values, _ := url.ParseQuery(r.URL.RawQuery)
	return append(slices.Clip(r.Header[header]), values[query]...)
}

// token is the session's, as the current secret makes it.
func (b *browserSession) token(secret []byte) string {
	return base64.RawURLEncoding.EncodeToString(signed(secret, "csrf", b.name))
}

// hasToken says whether the session's token is among some. Nobody has one
// without a session.
func (b *browserSession) hasToken(tokens []string) bool {
	if b == nil {
		return false
	}
	for _, secret := range b.keys {
		want := []byte(b.token(secret))
		for _, token := range tokens {
			if hmac.Equal([]byte(token), want) {
				return true
			}
		}
	}
	return false
}

// giveToken gives pages the token in a cookie that their scripts can read,
// unless they have it.
func giveToken(r *http.Request, info *Info, name string) {
	token := info.session.token(info.session.keys[0])
	if has := r.CookiesNamed(name); len(has) > 0 && has[0].Value == token {
		return
	}
	cookie := (&http.Cookie{
		Name: name, Value: token, Path: "/", SameSite: http.SameSiteLaxMode, Secure: info.Scheme == "https",
	}).String()
	info.EditResponse(func(h http.Header) {
		h["Set-Cookie"] = append(slices.Clip(h["Set-Cookie"]), cookie)
		if h["Cache-Control"] == nil {
			h["Cache-Control"] = []string{"private"}
		}
	})
}
