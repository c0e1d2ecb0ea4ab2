package plug

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/config"
)

const (
	aSecret     = "0123456789abcdef0123456789abcdef"
	otherSecret = "fedcba9876543210fedcba9876543210"
)

func sessionConfig(secret string, old ...string) *config.SessionPlug {
	c := config.DefaultSessionPlug()
	c.Secret, c.ID = config.NewSecret(secret), "visitor:{session}"
	for _, o := range old {
		c.OldSecrets = append(c.OldSecrets, config.NewSecret(o))
	}
	return &c
}

// visit sends a request with cookies through a plug and returns what is
// known of it, and the cookies that are set.
func visit(h http.Handler, target string, cookies ...*http.Cookie) (int, *Info, []*http.Cookie) {
	r, info := request("GET", target)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	code := status(h, r).Code
	answer := http.Header{"Set-Cookie": {"backend=1"}}
	info.ApplyResponse(answer)
	set := (&http.Response{Header: answer}).Cookies()
	if set[0].Name != "backend" {
		panic("the backend's cookie is gone")
	}
	return code, info, set[1:]
}

func TestSession(t *testing.T) {
	h := compile(t, "session", sessionConfig(aSecret), Env{}).Wrap(ok(nil))
	_, first, set := visit(h, "http://a.test/")
	if len(set) != 1 || !strings.HasPrefix(first.ID, "visitor:") {
		t.Fatalf("id %q, cookies %v", first.ID, set)
	}
	c := set[0]
	if c.Name != "_stent_session" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge != 24*3600 {
		t.Errorf("cookie %v", c)
	}
	_, second, set := visit(h, "http://a.test/", c)
	if second.ID != first.ID || len(set) != 0 {
		t.Errorf("the second request is of %q, want %q; it sets %v", second.ID, first.ID, set)
	}
	if _, third, _ := visit(h, "http://a.test/"); third.ID == first.ID {
		t.Error("two browsers have one session")
	}
}

func TestSessionTampering(t *testing.T) {
	plug := compile(t, "session", sessionConfig(aSecret), Env{})
	h := plug.Wrap(ok(nil))
	_, first, set := visit(h, "http://a.test/")
	good := set[0].Value
	parts := strings.Split(good, ".")
	other := compile(t, "session", sessionConfig(otherSecret), Env{}).Wrap(ok(nil))
	_, _, set = visit(other, "http://a.test/")
	foreign := set[0].Value
	renamed := sessionConfig(aSecret)
	renamed.Cookie = "another"
	_, _, set = visit(compile(t, "session", renamed, Env{}).Wrap(ok(nil)), "http://a.test/")
	for name, value := range map[string]string{
		"empty":                 "",
		"garbage":               "garbage",
		"dots":                  "...",
		"another name":          "0" + parts[0][1:] + "." + parts[1] + "." + parts[2], // no name has a 0
		"a later time":          parts[0] + "." + parts[1] + "0." + parts[2],
		"no signature":          parts[0] + "." + parts[1] + ".",
		"without its signature": parts[0] + "." + parts[1],
		"a zero signature":      parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
		"a cut signature":       good[:len(good)-2],
		"a longer signature":    good + "AA",
		"another case":          strings.ToLower(good),
		"dot moved":             parts[0] + parts[1][:1] + "." + parts[1][1:] + "." + parts[2],
		"of another secret":     foreign,
		"of another cookie":     set[0].Value,
		"huge":                  strings.Repeat("a", 5000) + "." + parts[1] + "." + parts[2],
		"spare bits":            good[:len(good)-1] + string(rune(good[len(good)-1]+1)),
	} {
		t.Run(name, func(t *testing.T) {
			_, info, set := visit(h, "http://a.test/", &http.Cookie{Name: "_stent_session", Value: value})
			if info.ID == first.ID || len(set) != 1 || set[0].Value == value {
				t.Errorf("%q was believed: id %q, cookies %v", value, info.ID, set)
			}
		})
	}
	t.Run("a bad one before a good one", func(t *testing.T) {
		_, info, _ := visit(h, "http://a.test/", &http.Cookie{Name: "_stent_session", Value: foreign}, &http.Cookie{Name: "_stent_session", Value: good})
		if info.ID != first.ID {
			t.Errorf("id %q, want %q", info.ID, first.ID)
		}
	})
}

func TestSessionAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := compile(t, "session", sessionConfig(aSecret), Env{}).Wrap(ok(nil))
		_, first, set := visit(h, "http://a.test/")
		cookie := set[0]
		time.Sleep(11 * time.Hour)
		if _, info, set := visit(h, "http://a.test/", cookie); info.ID != first.ID || len(set) != 0 {
			t.Errorf("young: id %q, cookies %v", info.ID, set)
		}
		time.Sleep(2 * time.Hour)
		_, info, set := visit(h, "http://a.test/", cookie)
		if info.ID != first.ID || len(set) != 1 {
			t.Fatalf("past its half: id %q, want %q, and cookies %v", info.ID, first.ID, set)
		}
		fresh := set[0]
		time.Sleep(12 * time.Hour)
		if _, info, _ := visit(h, "http://a.test/", cookie); info.ID == first.ID {
			t.Error("a cookie past its age was believed")
		}
		if _, info, _ := visit(h, "http://a.test/", fresh); info.ID != first.ID {
			t.Error("a renewed cookie was not believed")
		}
	})
}

func TestSessionSecretChanges(t *testing.T) {
	before := compile(t, "session", sessionConfig(aSecret), Env{}).Wrap(ok(nil))
	after := compile(t, "session", sessionConfig(otherSecret, aSecret), Env{}).Wrap(ok(nil))
	_, first, set := visit(before, "http://a.test/")
	_, info, set := visit(after, "http://a.test/", set[0])
	if info.ID != first.ID || len(set) != 1 {
		t.Fatalf("id %q, want %q, and the cookie signed anew: %v", info.ID, first.ID, set)
	}
	last := compile(t, "session", sessionConfig(otherSecret), Env{}).Wrap(ok(nil))
	if _, info, _ := visit(last, "http://a.test/", set[0]); info.ID != first.ID {
		t.Error("the cookie signed anew was not believed")
	}
}

func TestSessionCookieAttributes(t *testing.T) {
	for _, tt := range []struct {
		name, cookie, sameSite, scheme string
		secure                         bool
		want                           http.SameSite
	}{
		{"https", "a", "lax", "https", true, http.SameSiteLaxMode},
		{"http", "a", "strict", "http", false, http.SameSiteStrictMode},
		{"host prefix", "__Host-a", "lax", "http", true, http.SameSiteLaxMode},
		{"none", "a", "none", "http", true, http.SameSiteNoneMode},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := sessionConfig(aSecret)
			c.Cookie, c.SameSite, c.MaxAge = tt.cookie, tt.sameSite, 0
			h := compile(t, "session", c, Env{}).Wrap(ok(nil))
			r, info := request("GET", "/")
			info.Scheme = tt.scheme
			status(h, r)
			answer := http.Header{}
			info.ApplyResponse(answer)
			set := (&http.Response{Header: answer}).Cookies()
			if len(set) != 1 || set[0].Secure != tt.secure || set[0].SameSite != tt.want || set[0].MaxAge != 0 || set[0].Domain != "" {
				t.Errorf("cookie %v", set)
			}
			if answer.Get("Cache-Control") != "private" {
				t.Errorf("a cache may keep the cookie: %v", answer)
			}
		})
	}
}

func FuzzSessionCookie(f *testing.F) {
	s, err := newSessionSigner(sessionConfig(aSecret))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("A.1.AAAA")
	f.Add("...")
	f.Fuzz(func(t *testing.T, value string) {
		if name, _, _, ok := s.verify(value); ok {
			t.Errorf("%q is believed to be %q", value, name)
		}
	})
}

func TestCSRF(t *testing.T) {
	p, err := CompilePipeline([]config.Plug{
		{Name: "session", Config: sessionConfig(aSecret)},
		{Name: "csrf", Config: &config.CSRFPlug{Query: "_csrf_token", Header: "X-CSRF-Token", Cookie: "_csrf_token"}},
	}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	h := p.Wrap(ok(nil))
	code, _, set := visit(h, "http://a.test/page")
	if code != 200 || len(set) != 2 || set[1].HttpOnly {
		t.Fatalf("the page got %d and %v", code, set)
	}
	mine, token := set[0], set[1].Value
	if _, _, set := visit(h, "http://a.test/page", set...); len(set) != 0 {
		t.Errorf("who has both cookies got %v", set)
	}
	_, _, set = visit(h, "http://a.test/page")
	theirs, theirToken := set[0], set[1].Value

	for _, tt := range []struct {
		name           string
		method, target string
		header         []string
		cookies        []*http.Cookie
		want           int
	}{
		{name: "page", method: "GET", target: "/page", want: 200},
		{name: "query", target: "/socket?vsn=2.0.0&_csrf_token=" + token, cookies: []*http.Cookie{mine}, want: 200},
		{name: "header", target: "/socket", header: []string{"X-Csrf-Token", token}, cookies: []*http.Cookie{mine}, want: 200},
		{name: "no token", target: "/socket", cookies: []*http.Cookie{mine}, want: 403},
		{name: "empty token", target: "/socket?_csrf_token=", cookies: []*http.Cookie{mine}, want: 403},
		{name: "no session", target: "/socket?_csrf_token=" + token, want: 403},
		{name: "another's token", target: "/socket?_csrf_token=" + theirToken, cookies: []*http.Cookie{mine}, want: 403},
		{name: "another's session", target: "/socket?_csrf_token=" + token, cookies: []*http.Cookie{theirs}, want: 403},
		// What an attacker has planted in the cookie is not what is compared.
		{name: "fixation", target: "/socket?_csrf_token=planted", cookies: []*http.Cookie{mine, {Name: "_csrf_token", Value: "planted"}}, want: 403},
		{name: "fixation by another's token", target: "/socket?_csrf_token=" + theirToken, cookies: []*http.Cookie{mine, {Name: "_csrf_token", Value: theirToken}}, want: 403},
		{name: "only the cookie", target: "/socket", cookies: []*http.Cookie{mine, {Name: "_csrf_token", Value: token}}, want: 403},
		{name: "the session's cookie as a token", target: "/socket?_csrf_token=" + mine.Value, cookies: []*http.Cookie{mine}, want: 403},
		{name: "post", method: "POST", target: "/page", cookies: []*http.Cookie{mine}, want: 403},
		{name: "post with it", method: "POST", target: "/page", header: []string{"X-Csrf-Token", token}, cookies: []*http.Cookie{mine}, want: 200},
		{name: "delete", method: "DELETE", target: "/page", cookies: []*http.Cookie{mine}, want: 403},
		{name: "a handshake by another method", method: "OPTIONS", target: "/socket", header: []string{"Upgrade", "a, WebSocket"}, cookies: []*http.Cookie{mine}, want: 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := tt.header
			if tt.method == "" {
				tt.method, header = "GET", append(header, "Upgrade", "websocket")
			}
			r, _ := request(tt.method, "http://a.test"+tt.target, header...)
			for _, c := range tt.cookies {
				r.AddCookie(c)
			}
			if got := status(h, r).Code; got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	t.Run("without the session plug nobody passes", func(t *testing.T) {
		h := p[1].Wrap(ok(nil))
		r, _ := request("GET", "http://a.test/socket?_csrf_token="+token, "Upgrade", "websocket")
		if got := status(h, r).Code; got != 403 {
			t.Errorf("got %d", got)
		}
	})
}
