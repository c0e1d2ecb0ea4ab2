package plug

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stentproxy/stent/config"
)

// sessionLimit is how long a cookie without an age is believed: the browser
// may be open for ever.
const sessionLimit = 30 * 24 * time.Hour

// maxSessionCookie bounds a cookie that is looked at, in bytes.
const maxSessionCookie = 128

// clockSkew is how far the clocks of two proxies may differ.
const clockSkew = time.Minute

// cookieSession gives each browser a session: a random name, in a cookie that is
// signed (HMAC-SHA256, RFC 2104), so that nobody can choose it. A cookie that
// is missing, forged or too old is answered with a new one, and one past the
// half of its age is made anew under the same name.
func cookieSession(c *config.SessionPlug, _ Env) (Compiled, error) {
	signer, err := newSessionSigner(c)
	if err != nil {
		return Compiled{}, err
	}
	pattern, err := parseIDPattern(c.ID, func(name string) error {
		return fmt.Errorf("{%s} is not known here; {%s} is", name, sessionName)
	})
	if err != nil {
		return Compiled{}, config.Within("id", err)
	}
	return Compiled{Reads: []string{"Cookie"}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info, now := From(r), time.Now()
			s, stale := signer.read(r, now)
			if s == nil {
				s, stale = &browserSession{name: rand.Text(), keys: signer.keys}, true
			}
			if stale {
				info.EditResponse(signer.setCookie(s, info.Scheme, now))
			}
			info.session = s
			if len(pattern) > 0 {
				// A session's name is always printable, and short.
				info.ID, _ = pattern.fill(func(string) string { return s.name })
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// browserSession is what the session plug knows of a browser.
type browserSession struct {
	name string
	keys [][]byte // the current one first
}

// text is the session's name; empty where there is none.
func (b *browserSession) text() string {
	if b == nil {
		return ""
	}
	return b.name
}

// sessionSigner makes and reads the cookies of one session plug.
type sessionSigner struct {
	cookie   string
	keys     [][]byte
	age      time.Duration // how long a cookie is believed
	kept     time.Duration // how long browsers keep it; 0 is until they are closed
	sameSite http.SameSite
	secure   bool // also where the client speaks http
}

func newSessionSigner(c *config.SessionPlug) (*sessionSigner, error) {
	s := &sessionSigner{cookie: c.Cookie, kept: c.MaxAge.Std(), age: c.MaxAge.Std()}
	if s.age <= 0 {
		s.age = sessionLimit
	}
	for i, secret := range append([]config.Secret{c.Secret}, c.OldSecrets...) {
		if len(secret.Value()) < sha256.Size {
			key := "secret"
			if i > 0 {
				key = fmt.Sprintf("old_secrets[%d]", i-1)
			}
			return nil, config.Within(key, fmt.Errorf("is shorter than %d bytes", sha256.Size))
		}
		s.keys = append(s.keys, []byte(secret.Value()))
	}
	switch c.SameSite {
	case "lax", "":
		s.sameSite = http.SameSiteLaxMode
	case "strict":
		s.sameSite = http.SameSiteStrictMode
	case "none":
		s.sameSite, s.secure = http.SameSiteNoneMode, true // browsers ask for both
	default:
		return nil, config.Within("same_site", fmt.Errorf("%q is none of lax, strict and none", c.SameSite))
	}
	s.secure = s.secure || strings.HasPrefix(s.cookie, "__Host-") || strings.HasPrefix(s.cookie, "__Secure-")
	return s, nil
}

// read returns the session of a request's cookie, nil where there is none to
// be believed, and whether the cookie is to be made anew. Of several cookies
// of the name, which pages of sibling hosts can add, the first good one counts.
func (s *sessionSigner) read(r *http.Request, now time.Time) (b *browserSession, stale bool) {
	for _, cookie := range r.CookiesNamed(s.cookie) {
		name, issued, key, ok := s.verify(cookie.Value)
		age := now.Sub(issued)
		if ok && age < s.age && age > -clockSkew {
			return &browserSession{name: name, keys: s.keys}, key > 0 || age > s.age/2
		}
	}
	return nil, false
}

// verify takes a cookie's value apart: name.issued.signature. Key is the
// number of the secret that has signed it.
func (s *sessionSigner) verify(value string) (name string, issued time.Time, key int, ok bool) {
	if len(value) > maxSessionCookie {
		return "", time.Time{}, 0, false
	}
	dot := strings.LastIndexByte(value, '.')
	if dot < 0 {
		return "", time.Time{}, 0, false
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(value[dot+1:])
	if err != nil {
		return "", time.Time{}, 0, false
	}
	name, at, found := strings.Cut(value[:dot], ".")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if !found || name == "" || err != nil {
		return "", time.Time{}, 0, false
	}
	for key, secret := range s.keys {
		if hmac.Equal(signature, s.sign(secret, value[:dot])) {
			return name, time.Unix(seconds, 0), key, true
		}
	}
	return "", time.Time{}, 0, false
}

func (s *sessionSigner) sign(secret []byte, text string) []byte {
	return signed(secret, "session", s.cookie, text)
}

// signed is the signature of texts for a purpose. No text holds a line end.
func signed(secret []byte, purpose string, texts ...string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("stent " + purpose))
	for _, text := range texts {
		mac.Write([]byte("\n" + text))
	}
	return mac.Sum(nil)
}

// setCookie returns the change to an answer that gives the browser its
// cookie. Shared caches must not give it to others.
func (s *sessionSigner) setCookie(b *browserSession, scheme string, now time.Time) func(http.Header) {
	text := b.name + "." + strconv.FormatInt(now.Unix(), 10)
	cookie := (&http.Cookie{
		Name:     s.cookie,
		Value:    text + "." + base64.RawURLEncoding.EncodeToString(s.sign(s.keys[0], text)),
		Path:     "/",
		MaxAge:   int(s.kept.Seconds()),
		HttpOnly: true,
		Secure:   s.secure || scheme == "https",
		SameSite: s.sameSite,
	}).String()
	return func(h http.Header) {
		h["Set-Cookie"] = append(slices.Clip(h["Set-Cookie"]), cookie)
		if h["Cache-Control"] == nil {
			h["Cache-Control"] = []string{"private"}
		}
	}
}
