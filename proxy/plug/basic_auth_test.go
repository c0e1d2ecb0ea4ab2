package plug

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/stentproxy/stent/config"
)

func hashed(t testing.TB, password string) config.Secret {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return config.NewSecret(string(hash))
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestBasicAuth(t *testing.T) {
	h := compile(t, "basic_auth", &config.BasicAuthPlug{
		Users: map[string]config.Secret{"alice": hashed(t, "open: sesame"), "bob": config.NewSecret("plain"), "50%:": config.NewSecret("x")},
		Realm: "staff", ID: "user:{user}",
	}, Env{}).Wrap(ok(nil))
	for _, tt := range []struct {
		name, field string
		want        int
		id          string
	}{
		{"hash", basic("alice", "open: sesame"), 200, "user:alice"},
		{"hash again", basic("alice", "open: sesame"), 200, "user:alice"},
		{"plain", basic("bob", "plain"), 200, "user:bob"},
		{"lower case scheme", "basic " + basic("bob", "plain")[6:], 200, "user:bob"},
		{"no field", "", 401, ""},
		{"wrong for a hash", basic("alice", "open: sesam"), 401, ""},
		{"longer than the hash's", basic("alice", "open: sesame!"), 401, ""},
		{"wrong for a plain one", basic("bob", "Plain"), 401, ""},
		{"another's", basic("bob", "open: sesame"), 401, ""},
		{"the hash itself", basic("alice", hashed(t, "open: sesame").Value()), 401, ""},
		{"nobody", basic("carol", "plain"), 401, ""},
		{"empty", basic("", ""), 401, ""},
		{"user and password joined otherwise", basic("ali", "ceopen: sesame"), 401, ""},
		{"no base64", "Basic !!!", 401, ""},
		{"no colon", "Basic " + base64.StdEncoding.EncodeToString([]byte("bobplain")), 401, ""},
		{"another scheme", "Bearer " + basic("bob", "plain")[6:], 401, ""},
		{"huge", basic("bob", strings.Repeat("x", 10000)), 401, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, info := request("GET", "/")
			if tt.field != "" {
				r.Header.Set("Authorization", tt.field)
			}
			w := status(h, r)
			if w.Code != tt.want || info.ID != tt.id {
				t.Errorf("got %d and id %q, want %d and %q", w.Code, info.ID, tt.want, tt.id)
			}
			if asks := w.Header().Get("WWW-Authenticate"); (asks == `Basic realm="staff", charset="UTF-8"`) != (tt.want == 401) {
				t.Errorf("WWW-Authenticate %q", asks)
			}
		})
	}
}

// Whether there is such a user does not show: a hash is computed for those
// that are not there, and for a wrong plain password.
func TestBasicAuthHidesUsers(t *testing.T) {
	p, err := newPasswords(map[string]config.Secret{"alice": hashed(t, "a"), "bob": config.NewSecret("b")})
	if err != nil {
		t.Fatal(err)
	}
	if err := bcrypt.CompareHashAndPassword(p.nobody, []byte("x")); err != bcrypt.ErrMismatchedHashAndPassword {
		t.Fatalf("the hash for nobody: %v", err)
	}
	// With every turn taken, only who needs none is answered.
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	for _, who := range [][2]string{{"alice", "x"}, {"bob", "x"}, {"nobody", "x"}} {
		r, _ := request("GET", "/")
		ctx, cancel := context.WithCancel(r.Context())
		done := make(chan bool)
		go func() { done <- p.match(r.WithContext(ctx), who[0], who[1]) }()
		select {
		case <-done:
			t.Errorf("%s was refused without a hash", who[0])
			cancel()
		case <-time.After(20 * time.Millisecond):
			cancel()
			if <-done {
				t.Errorf("%s came in", who[0])
			}
		}
	}
}

func TestBasicAuthConfiguration(t *testing.T) {
	for name, c := range map[string]*config.BasicAuthPlug{
		"nobody":        {},
		"empty":         {Users: map[string]config.Secret{"a": config.NewSecret("")}},
		"broken hash":   {Users: map[string]config.Secret{"a": config.NewSecret("$2y$10$short-hunter2")}},
		"unknown name":  {Users: map[string]config.Secret{"a": config.NewSecret("b")}, ID: "{email}"},
		"open brace":    {Users: map[string]config.Secret{"a": config.NewSecret("b")}, ID: "{user"},
		"nothing named": {Users: map[string]config.Secret{"a": config.NewSecret("b")}, ID: "user"},
		"realm":         {Users: map[string]config.Secret{"a": config.NewSecret("b")}, Realm: `a"b`},
	} {
		_, err := Compile(config.Plug{Name: "basic_auth", Config: c}, Env{})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDPattern(t *testing.T) {
	p, err := parseIDPattern("a:{x}:b:{y}", func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ x, y, want string }{
		{"1", "2", "a:1:b:2"},
		{"1:b", "2/3%", "a:1%3Ab:b:2%2F3%25"},
		{"", "2", ""},
		{"1\n", "2", ""},
		{"\xff", "2", ""},
		{strings.Repeat("x", 300), "2", ""},
	} {
		got, err := p.fill(func(name string) string { return map[string]string{"x": tt.x, "y": tt.y}[name] })
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q, %q: got %q, %v, want %q", tt.x, tt.y, got, err, tt.want)
		}
	}
}

func FuzzIDPattern(f *testing.F) {
	f.Add("user:{x}", "1")
	f.Add("{", "}")
	f.Fuzz(func(t *testing.T, text, value string) {
		p, err := parseIDPattern(text, func(string) error { return nil })
		if err != nil {
			return
		}
		if id, err := p.fill(func(string) string { return value }); err == nil && len(id) > maxID {
			t.Errorf("%q of %q is long", id, text)
		}
	})
}
