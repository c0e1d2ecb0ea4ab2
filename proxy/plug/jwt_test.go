package plug

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// secretPlug is a plug for tokens that tokentest.HS256 signs.
func secretPlug(change func(*config.JWTPlug)) *config.JWTPlug {
	c := config.DefaultJWTPlug()
	c.Algorithms, c.Secret = []string{"HS256"}, config.NewSecret(tokentest.Secret)
	if change != nil {
		change(&c)
	}
	return &c
}

// A token is found at each place, in the order of the configuration, and
// removed from all of them where that is asked for.
func TestTokenPlaces(t *testing.T) {
	good := tokentest.HS256(t, tokentest.Claims{"sub": "42"})
	phx := "base64url.bearer.phx." + base64.RawURLEncoding.EncodeToString([]byte(good))
	type header = map[string]string
	for _, tt := range []struct {
		name   string
		from   string
		target string
		header header
		want   int
		// of what goes up when the token is removed
		up    header
		query string
		told  string
	}{
		{name: "Authorization", from: "header:Authorization", header: header{"Authorization": "Bearer " + good}, want: 200},
		{name: "Authorization in small letters", from: "header:authorization", header: header{"Authorization": "bearer  " + good}, want: 200},
		{name: "Authorization without a scheme", from: "header:Authorization", header: header{"Authorization": good}, want: 401},
		{name: "Authorization of another kind", from: "header:Authorization", header: header{"Authorization": "Basic YTpi"}, want: 401},
		{name: "another header", from: "header:X-Token", header: header{"X-Token": good}, want: 200},
		{name: "another header with a scheme", from: "header:X-Token", header: header{"X-Token": "Bearer " + good}, want: 200},
		{name: "another header of underscores", from: "header:X_Token", header: header{"X_Token": good}, want: 200},
		{name: "two headers to some", from: "header:X-Token", header: header{"X-Token": good, "X_Token": "x"}, want: 401},
		{name: "the query", from: "query:token", target: "/x?vsn=2.0.0&token=" + good + "&a=%20+;b", want: 200, query: "vsn=2.0.0&a=%20+;b"},
		{name: "the query alone", from: "query:token", target: "/x?token=" + good, want: 200},
		{name: "the query, encoded", from: "query:to ken", target: "/x?to%20ken=" + strings.ReplaceAll(good, ".", "%2E"), want: 200},
		{name: "twice in the query", from: "query:token", target: "/x?token=" + good + "&%74oken=" + good, want: 401},
		{name: "empty in the query", from: "query:token", target: "/x?token=", want: 401},
		{name: "a line end in the query", from: "query:token", target: "/x?token=" + good + "%0A", want: 401},
		{name: "a cookie", from: "cookie:session", header: header{"Cookie": "a=b; session=" + good + "; c=\"d\""}, want: 200, up: header{"Cookie": "a=b; c=\"d\""}},
		{name: "a cookie alone", from: "cookie:session", header: header{"Cookie": "session=" + good}, want: 200},
		{name: "two cookies", from: "cookie:session", header: header{"Cookie": "session=" + good + "; session=x"}, want: 401},
		{name: "Phoenix", from: "protocol", header: header{"Sec-Websocket-Protocol": "phoenix, " + phx}, want: 200, up: header{"Sec-Websocket-Protocol": "phoenix"}, told: "phoenix"},
		{name: "Phoenix with padding", from: "protocol", header: header{"Sec-Websocket-Protocol": phx + "==, phoenix"}, want: 200, up: header{"Sec-Websocket-Protocol": "phoenix"}, told: "phoenix"},
		{name: "Phoenix's form alone", from: "protocol", header: header{"Sec-Websocket-Protocol": phx}, want: 200},
		{name: "Phoenix's form, broken", from: "protocol", header: header{"Sec-Websocket-Protocol": "phoenix, base64url.bearer.phx.!"}, want: 401},
		{name: "a named token", from: "protocol", header: header{"Sec-Websocket-Protocol": "access_token, " + good}, want: 200, told: "access_token"},
		{name: "a named token among others", from: "protocol", header: header{"Sec-Websocket-Protocol": "a,access_token," + good + ",b"}, want: 200, up: header{"Sec-Websocket-Protocol": "a, b"}, told: "access_token"},
		{name: "a name without a token", from: "protocol", header: header{"Sec-Websocket-Protocol": "a, access_token"}, want: 401},
		{name: "both forms", from: "protocol", header: header{"Sec-Websocket-Protocol": "access_token, " + good + ", " + phx}, want: 401},
		{name: "no token", from: "protocol", header: header{"Sec-Websocket-Protocol": "phoenix"}, want: 401},
		{name: "elsewhere", from: "query:token", header: header{"Authorization": "Bearer " + good}, want: 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.target == "" {
				tt.target = "/x?a=1"
				tt.query = "a=1"
			}
			for _, remove := range []bool{false, true} {
				h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) { c.From, c.RemoveToken = []string{tt.from}, remove }), Env{})
				var seen *http.Request
				r, info := request("GET", tt.target)
				for name, value := range tt.header {
					r.Header.Set(name, value)
				}
				w := status(h.Wrap(ok(&seen)), r)
				if w.Code != tt.want {
					t.Fatalf("got %d %s, want %d", w.Code, w.Body, tt.want)
				}
				if tt.want != 200 {
					if challenge := w.Header().Get("Www-Authenticate"); !strings.HasPrefix(challenge, `Bearer realm="stent"`) {
						t.Errorf("challenge %q", challenge)
					}
					if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
						t.Errorf("answered %s", got)
					}
					continue
				}
				if info.Claims["sub"] != "42" || info.Subprotocol != tt.told {
					t.Errorf("claims %v, subprotocol %q; want %q", info.Claims, info.Subprotocol, tt.told)
				}
				up := maps.Clone(seen.Header)
				info.ApplyRequest(up)
				uri := seen.RequestURI
				if !remove {
					if uri != tt.target || len(up) != len(tt.header) {
						t.Errorf("kept: %s %v goes up", uri, up)
					}
					continue
				}
				want := "/x"
				if tt.query != "" {
					want += "?" + tt.query
				}
				if uri != want || seen.URL.RawQuery != tt.query {
					t.Errorf("removed: %s goes up, want %s", uri, want)
				}
				if len(up) != len(tt.up) {
					t.Errorf("removed: %v goes up, want %v", up, tt.up)
				}
				for name, value := range tt.up {
					if up.Get(name) != value {
						t.Errorf("removed: %s goes up as %q, want %q", name, up.Get(name), value)
					}
				}
			}
		})
	}
}

// The first place that has a token decides; a bad one there is not mended by a
// good one elsewhere, and none that was not verified goes up.
func TestTokenPlacesInOrder(t *testing.T) {
	good, bad := tokentest.HS256(t, tokentest.Claims{"sub": "42"}), tokentest.Raw(`{"alg":"none"}`, `{}`, nil)
	h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) {
		c.From, c.RemoveToken = []string{"header:Authorization", "query:token"}, true
	}), Env{})
	r, _ := request("GET", "/?token="+good, "Authorization", "Bearer "+bad)
	if got := status(h.Wrap(ok(nil)), r).Code; got != 401 {
		t.Errorf("a bad token before a good one: %d", got)
	}
	var seen *http.Request
	r, info := request("GET", "/?token="+bad, "Authorization", "Bearer "+good)
	if got := status(h.Wrap(ok(&seen)), r).Code; got != 200 {
		t.Fatalf("a good token before a bad one: %d", got)
	}
	info.ApplyRequest(seen.Header)
	if seen.RequestURI != "/" || len(seen.Header) != 0 {
		t.Errorf("%s %v goes up", seen.RequestURI, seen.Header)
	}
}

// Ids are made of claims; no claim reaches beyond its place in the template.
func TestIDTemplate(t *testing.T) {
	for _, tt := range []struct {
		name     string
		template string
		claims   tokentest.Claims
		want     string // "" is refused
	}{
		{"text", "user_socket:{sub}", tokentest.Claims{"sub": "42"}, "user_socket:42"},
		{"a number", "user_socket:{sub}", tokentest.Claims{"sub": int64(9007199254740993)}, "user_socket:9007199254740993"},
		{"a boolean", "{admin}", tokentest.Claims{"admin": true}, "true"},
		{"two claims", "{tenant}:{sub}", tokentest.Claims{"tenant": "a", "sub": "b"}, "a:b"},
		{"a claim by its URL", "u:{https://a.test/id}", tokentest.Claims{"https://a.test/id": "7"}, "u:7"},
		{"words of the world", "u:{sub}", tokentest.Claims{"sub": "Zoë Łuczak"}, "u:Zoë Łuczak"},
		{"an e-mail address", "u:{sub}", tokentest.Claims{"sub": "a+b@c.test"}, "u:a+b@c.test"},
		{"a colon", "{tenant}:{sub}", tokentest.Claims{"tenant": "a:b", "sub": "c"}, "a%3Ab:c"},
		{"a colon there", "{tenant}:{sub}", tokentest.Claims{"tenant": "a", "sub": "b:c"}, "a:b%3Ac"},
		{"a slash", "u:{sub}", tokentest.Claims{"sub": "../admin"}, "u:..%2Fadmin"},
		{"an escape", "u:{sub}", tokentest.Claims{"sub": "a%3Ab"}, "u:a%253Ab"},
		{"a template", "u:{sub}", tokentest.Claims{"sub": "{admin}", "admin": "x"}, "u:{admin}"},
		{"no such claim", "u:{sub}", tokentest.Claims{"Sub": "42"}, ""},
		{"an empty one", "u:{sub}", tokentest.Claims{"sub": ""}, ""},
		{"null", "u:{sub}", tokentest.Claims{"sub": nil}, ""},
		{"a list", "u:{sub}", tokentest.Claims{"sub": []string{"a"}}, ""},
		{"an object", "u:{sub}", tokentest.Claims{"sub": tokentest.Claims{"a": 1}}, ""},
		{"a fraction", "u:{sub}", tokentest.Claims{"sub": 1.5}, ""},
		{"a number out of range", "u:{sub}", tokentest.Claims{"sub": 1e300}, ""},
		{"a line end", "u:{sub}", tokentest.Claims{"sub": "a\nb"}, ""},
		{"NUL", "u:{sub}", tokentest.Claims{"sub": "a\x00"}, ""},
		{"DEL", "u:{sub}", tokentest.Claims{"sub": "a\x7f"}, ""},
		{"letters from right to left", "u:{sub}", tokentest.Claims{"sub": "a\u202eb"}, ""},
		{"no width", "u:{sub}", tokentest.Claims{"sub": "a\u200bb"}, ""},
		{"a line separator", "u:{sub}", tokentest.Claims{"sub": "a\u2028b"}, ""},
		{"too long", "u:{sub}", tokentest.Claims{"sub": strings.Repeat("a", maxID-1)}, ""},
		{"as long as may be", "u:{sub}", tokentest.Claims{"sub": strings.Repeat("a", maxID-2)}, "u:" + strings.Repeat("a", maxID-2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) { c.ID = tt.template }), Env{})
			r, info := request("GET", "/", "Authorization", "Bearer "+tokentest.HS256(t, tt.claims))
			w := status(h.Wrap(ok(nil)), r)
			if info.ID != tt.want || (w.Code == 200) != (tt.want != "") {
				t.Errorf("got %q, %d %s; want %q", info.ID, w.Code, w.Body, tt.want)
			}
		})
	}
}

// Claims go up as headers; none can be more than one, or come from a client.
func TestClaimHeaders(t *testing.T) {
	for _, tt := range []struct {
		name  string
		claim any
		want  string
		code  int
	}{
		{"text", "alice", "alice", 200},
		{"words of the world", "Zoë", "Zoë", 200},
		{"a number", 42, "42", 200},
		{"a boolean", true, "true", 200},
		{"a list", []string{"admin", "a,b\r\nX-Admin: 1"}, `["admin","a,b\r\nX-Admin: 1"]`, 200},
		{"an object", tokentest.Claims{"a": "b\n"}, `{"a":"b\n"}`, 200},
		{"null", nil, "", 200},
		{"a line", "alice\r\nX-Admin: 1", "", 401},
		{"a line feed", "alice\n", "", 401},
		{"NUL", "a\x00b", "", 401},
		{"blanks at the end", "admin ", "", 401},
		{"a tab at the start", "\tadmin", "", 401},
		{"too long", strings.Repeat("a", maxClaimHeader+1), "", 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) { c.Headers = map[string]string{"x-user": "name"} }), Env{})
			if !slices.Contains(h.Sets, "X-User") {
				t.Errorf("sets %v", h.Sets)
			}
			r, info := request("GET", "/", "Authorization", "Bearer "+tokentest.HS256(t, tokentest.Claims{"name": tt.claim}))
			w := status(h.Wrap(ok(nil)), r)
			up := http.Header{}
			info.ApplyRequest(up)
			if w.Code != tt.code || up.Get("X-User") != tt.want || len(up["X-User"]) > 1 {
				t.Errorf("got %d %v, want %d %q", w.Code, up, tt.code, tt.want)
			}
		})
	}
}

// A request is told why, in words that hold nothing of the token; without a
// token it is told no error (RFC 6750 section 3.1).
func TestTokenChallenge(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) { c.From = []string{"query:token"} }), Env{Log: zap.New(core)})
	expired := tokentest.HS256(t, tokentest.Claims{"exp": 1, "sub": "alice"})
	for _, tt := range []struct{ target, challenge string }{
		{"/", `Bearer realm="stent"`},
		{"/?token=" + expired, `Bearer realm="stent", error="invalid_token", error_description="the token has expired"`},
		{`/?token=%22%0d%0aX`, `Bearer realm="stent", error="invalid_token", error_description="the token is malformed"`},
	} {
		r, info := request("GET", tt.target)
		info.RequestID = "r1"
		w := status(h.Wrap(ok(nil)), r)
		if got := w.Header().Get("Www-Authenticate"); w.Code != 401 || got != tt.challenge {
			t.Errorf("%s: got %d %s", tt.target, w.Code, got)
		}
		if !strings.Contains(w.Body.String(), `"request_id":"r1"`) || strings.Contains(w.Body.String(), expired) {
			t.Errorf("%s: got %s", tt.target, w.Body)
		}
	}
	for _, line := range logs.All() {
		if text := line.Message + " " + line.ContextMap()["error"].(string); strings.Contains(text, expired[:10]) || strings.Contains(text, "alice") {
			t.Errorf("logged %s", text)
		}
	}
	if logs.Len() != 3 {
		t.Errorf("%d lines", logs.Len())
	}
}

// Where the issuer's keys were never reached it is not the client's fault.
func TestTokenWithoutKeys(t *testing.T) {
	c := config.DefaultJWTPlug()
	keys := config.DefaultJWKS()
	keys.URL, keys.Timeout = "http://127.0.0.1:1", config.Duration(time.Millisecond) // and nobody fetches
	c.Algorithms, c.JWKS = []string{"RS256"}, &keys
	p := compile(t, "jwt", &c, Env{})
	if p.Keys == nil {
		t.Error("needs no key set")
	}
	r, _ := request("GET", "/", "Authorization", "Bearer "+tokentest.Raw(`{"alg":"RS256"}`, `{}`, []byte("x")))
	if w := status(p.Wrap(ok(nil)), r); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}

func TestRevokedToken(t *testing.T) {
	revoked := new(token.Revocations)
	h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) { c.ID = "user:{sub}" }), Env{Revocations: revoked})
	for _, r := range []token.Revocation{{ID: "user:1"}, {TokenID: "t2"}} {
		if err := revoked.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		sub, jti string
		want     int
	}{{"1", "t1", 401}, {"2", "t2", 401}, {"2", "t1", 200}, {"3", "", 200}, {"user:1", "x", 200}} {
		claims := tokentest.Claims{"sub": tt.sub}
		if tt.jti != "" {
			claims["jti"] = tt.jti
		}
		r, _ := request("GET", "/", "Authorization", "Bearer "+tokentest.HS256(t, claims))
		if w := status(h.Wrap(ok(nil)), r); w.Code != tt.want {
			t.Errorf("%v: got %d", tt, w.Code)
		}
	}
}

// A session ends with its token, after the grace; with two tokens the earlier
// one counts, and what is let in within the leeway has until its end.
func TestTokenExpiry(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, tt := range []struct {
		name          string
		exps          []any
		grace, leeway time.Duration
		want          time.Time
	}{
		{"no expiry", []any{nil}, time.Hour, 0, time.Time{}},
		{"an expiry", []any{at(time.Hour)}, 0, 0, now.Add(time.Hour)},
		{"with grace", []any{at(time.Hour)}, time.Minute, time.Second, now.Add(time.Hour + time.Minute)},
		{"within the leeway", []any{at(-5 * time.Second)}, 0, time.Minute, now.Add(55 * time.Second)},
		{"two", []any{at(2 * time.Hour), at(time.Hour)}, 0, 0, now.Add(time.Hour)},
		{"two, one without", []any{at(2 * time.Hour), nil}, 0, 0, now.Add(2 * time.Hour)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, info := request("GET", "/")
			for i, exp := range tt.exps {
				claims := tokentest.Claims{"sub": "1", "jti": string(rune('a' + i))}
				if exp != nil {
					claims["exp"] = exp
				}
				r.Header.Set("Authorization", "Bearer "+tokentest.HS256(t, claims))
				h := compile(t, "jwt", secretPlug(func(c *config.JWTPlug) {
					c.Grace, c.Leeway = config.Duration(tt.grace), config.Duration(tt.leeway)
				}), Env{})
				if w := status(h.Wrap(ok(nil)), r); w.Code != 200 {
					t.Fatalf("got %d %s", w.Code, w.Body)
				}
			}
			if !info.Expires.Equal(tt.want) || len(info.TokenIDs) != len(tt.exps) {
				t.Errorf("ends %v with %v, want %v", info.Expires, info.TokenIDs, tt.want)
			}
		})
	}
}

func TestLimitByTokenID(t *testing.T) {
	p, err := CompilePipeline([]config.Plug{
		{Name: "jwt", Config: secretPlug(func(c *config.JWTPlug) { c.ID = "user:{sub}" })},
		{Name: "limit", Config: &config.LimitPlug{Sessions: 1, By: "id"}},
	}, Env{Counts: new(Counts), Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	h := p.Wrap(ok(nil))
	for i, want := range []int{200, 429, 200} {
		r, _ := request("GET", "/", "Authorization", "Bearer "+tokentest.HS256(t, tokentest.Claims{"sub": []string{"a", "a", "b"}[i]}))
		if w := status(h, r); w.Code != want {
			t.Errorf("%d: got %d, want %d", i, w.Code, want)
		}
	}
}

// FuzzTokenSource checks that no token is left in what goes up, whatever else
// a client sends, and that nothing but tokens is taken out.
func FuzzTokenSource(f *testing.F) {
	f.Add("a=b; session=x;c", "token=x&a=%zz&token", "phoenix, access_token, x, base64url.bearer.phx.eA", "Bearer x")
	f.Add(";session = y", "&&=&to%6ben=1", ",access_token,,access_token", "bearer")
	f.Fuzz(func(t *testing.T, cookie, query, protocols, header string) {
		r, _ := request("GET", "/")
		r.Header["Cookie"], r.Header[protocolHeader], r.Header["Authorization"] = []string{cookie}, []string{protocols}, []string{header}
		r.URL.RawQuery, r.RequestURI = query, "/?"+query
		for _, from := range []string{"cookie:session", "query:token", "protocol", "header:Authorization"} {
			s, err := newTokenSource(from)
			if err != nil {
				t.Fatal(err)
			}
			none := len(s.find(r)) == 0
			before := len(r.RequestURI) + len(r.Header["Cookie"]) + len(r.Header[protocolHeader])
			s.remove(r.Header)
			r = s.withoutQuery(r)
			if found := s.find(r); len(found) > 0 {
				t.Errorf("%s is left of %q %q %q %q", found, cookie, query, protocols, header)
			}
			if after := len(r.RequestURI) + len(r.Header["Cookie"]) + len(r.Header[protocolHeader]); none && s.Kind == config.FromProtocol && after != before {
				t.Errorf("%s took something of %q", from, protocols)
			}
		}
	})
}
