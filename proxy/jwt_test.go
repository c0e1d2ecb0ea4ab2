package proxy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// members is a configuration whose one route asks for a token; plug are more
// options of it, route those of the route.
func members(up, plug, route string) string {
	return fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 1s}
pipelines:
  members:
    - jwt: {algorithms: [HS256], secret: %q, from: ["query:token", "protocol"], id: "user_socket:{sub}"%s}
routes:
  - {path: /*, upstream: app, pipe_through: [members], timeouts: {close: 1s}%s}
upstreams: {app: {targets: [%q]}}
`, tokentest.Secret, plug, route, up)
}

func front(p *Proxy) string { return "ws://" + p.Addrs()[0].String() }

// join opens a session with a token of the claims.
func join(t *testing.T, p *Proxy, claims tokentest.Claims) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return websocket.Dial(ctx, front(p)+"/x?token="+tokentest.HS256(t, claims), nil)
}

func mustJoin(t *testing.T, p *Proxy, claims tokentest.Claims) *websocket.Conn {
	t.Helper()
	c, _, err := join(t, p, claims)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// farewell reads a client to its close frame.
func farewell(ctx context.Context, c *websocket.Conn) (websocket.CloseError, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			bad, ok := errors.AsType[websocket.CloseError](err)
			if ok {
				err = nil
			}
			return bad, err
		}
	}
}

func refusedWith(t *testing.T, p *Proxy, claims tokentest.Claims, status int) {
	t.Helper()
	c, resp, err := join(t, p, claims)
	if err == nil {
		c.CloseNow()
		t.Fatalf("joined, want %d", status)
	}
	if resp == nil || resp.StatusCode != status {
		t.Fatalf("got %v, want %d", err, status)
	}
	if status == http.StatusUnauthorized && !strings.HasPrefix(resp.Header.Get("Www-Authenticate"), "Bearer ") {
		t.Errorf("no challenge: %v", resp.Header)
	}
}

func echoes(t *testing.T, c *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte("still there")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "still there" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// engines runs a test on both.
func engines(t *testing.T, f func(t *testing.T)) {
	for _, engine := range []string{"pump", "loop"} {
		t.Run(engine, func(t *testing.T) {
			t.Setenv(engineEnv, engine)
			f(t)
		})
	}
}

// A thousand sessions whose tokens expire at different moments end at those
// moments, each with 1008. How late they are is logged, and depends on the
// machine; the bound is for a session that is not ended by its own expiry.
func TestExpiryOfManySessions(t *testing.T) {
	const sessions, spread, bound = 1000, 3 * time.Second, 10 * time.Second
	const lead = 3 * time.Second // for one handshake
	engines(t, func(t *testing.T) {
		p, logs := launch(t, members(echo(t), "", ""), nil)
		var all sync.WaitGroup
		late := make([]time.Duration, sessions)
		places := make(chan struct{}, 16)
		for i := range sessions {
			all.Go(func() {
				places <- struct{}{}
				at := time.Now().Add(lead + rand.N(spread)).Truncate(time.Millisecond)
				exp := float64(at.UnixMilli()) / 1000
				c, _, err := join(t, p, tokentest.Claims{"sub": fmt.Sprint(i), "exp": exp})
				<-places
				if err != nil {
					t.Errorf("session %d: %v", i, err)
					return
				}
				defer c.CloseNow()
				bad, err := farewell(context.Background(), c)
				late[i] = time.Since(at)
				if err != nil || bad.Code != 1008 || bad.Reason != "token expired" {
					t.Errorf("session %d: got %v, %v", i, bad, err)
				}
				if late[i] < -10*time.Millisecond || late[i] > bound {
					t.Errorf("session %d: ended %v after its token", i, late[i])
				}
			})
		}
		all.Wait()
		slices.Sort(late)
		t.Logf("ended after expiry: first %v, median %v, 99th in 100 %v, last %v", late[0], late[sessions/2], late[sessions*99/100], late[sessions-1])
		waitUntil(t, "all sessions to be gone", func() bool { return len(p.Sessions()) == 0 })
		ended := 0
		for _, line := range logs.FilterMessage("session closed").All() {
			if line.ContextMap()["cause"] == "token expired" {
				ended++
			}
		}
		if ended != sessions {
			t.Errorf("%d closed for their token, want %d", ended, sessions)
		}
	})
}

// With grace a session outlives its token by that; the token itself is not
// accepted any more.
func TestExpiryWithGrace(t *testing.T) {
	p, _ := launch(t, members(echo(t), ", grace: 2s", ""), nil)
	claims := tokentest.Claims{"sub": "1", "exp": float64(time.Now().Add(time.Second).UnixMilli()) / 1000}
	c := mustJoin(t, p, claims)
	start := time.Now()
	bad, err := farewell(t.Context(), c)
	if err != nil || bad.Code != 1008 || time.Since(start) < 2*time.Second {
		t.Errorf("got %v, %v after %v", bad, err, time.Since(start))
	}
	refusedWith(t, p, claims, http.StatusUnauthorized)
}

// A session that is held for want of an upstream ends with its token, too.
func TestExpiryWhileHeld(t *testing.T) {
	engines(t, func(t *testing.T) {
		up := newKnockable(t)
		p, _ := launch(t, members(up.url, "", ", continuity: {hold: 1m, backoff: {min: 1s}}"), nil)
		c := mustJoin(t, p, tokentest.Claims{"sub": "1", "exp": float64(time.Now().Add(1500*time.Millisecond).UnixMilli()) / 1000})
		up.knock()
		waitUntil(t, "the session to be held", func() bool {
			return slices.ContainsFunc(p.Sessions(), func(s *Session) bool { return s.State() == HeldState })
		})
		if bad, err := farewell(t.Context(), c); err != nil || bad.Code != 1008 || bad.Reason != "token expired" {
			t.Errorf("got %v, %v", bad, err)
		}
	})
}

// knockable is an echo that can be ended with all its connections.
type knockable struct {
	url   string
	knock func()
}

func newKnockable(t *testing.T) knockable {
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, _, _ = c.Read(ctx)
	}))
	t.Cleanup(func() {
		cancel()
		srv.Close()
	})
	return knockable{strings.Replace(srv.URL, "http", "ws", 1), cancel}
}

// Revoking an id ends all its sessions and no others, and refuses new ones
// until it is over; revoking a token does so for that one.
func TestRevoke(t *testing.T) {
	engines(t, func(t *testing.T) {
		p, _ := launch(t, members(echo(t), "", ""), nil)
		claims := func(sub, jti string) tokentest.Claims { return tokentest.Claims{"sub": sub, "jti": jti} }
		var ones, twos []*websocket.Conn
		for i := range 5 {
			ones = append(ones, mustJoin(t, p, claims("1", fmt.Sprint("a", i))))
			twos = append(twos, mustJoin(t, p, claims("2", fmt.Sprint("b", i))))
		}
		waitUntil(t, "all sessions to be open", func() bool {
			return !slices.ContainsFunc(p.Sessions(), func(s *Session) bool { return s.State() != Open })
		})
		if n := len(p.SessionsWithID("user_socket:1")); n != 5 {
			t.Errorf("the registry has %d sessions of the id, want 5", n)
		}
		until := time.Now().Add(1500 * time.Millisecond)
		ended, err := p.Revoke(Revocation{ID: "user_socket:1", Until: until})
		if err != nil || ended != 5 {
			t.Errorf("ended %d, %v", ended, err)
		}
		for _, c := range ones {
			if bad, err := farewell(t.Context(), c); err != nil || bad.Code != 1008 || bad.Reason != "token revoked" {
				t.Errorf("got %v, %v", bad, err)
			}
		}
		for _, c := range twos {
			echoes(t, c)
		}
		if time.Now().Before(until) {
			refusedWith(t, p, claims("1", "a9"), http.StatusUnauthorized)
		}
		waitUntil(t, "the id to be welcome again", func() bool {
			c, _, err := join(t, p, claims("1", "a9"))
			if err == nil {
				c.CloseNow()
				if time.Now().Before(until) {
					t.Error("let in before its time")
				}
			}
			return err == nil
		})

		if ended, err := p.Revoke(Revocation{TokenID: "b3"}); err != nil || ended != 1 {
			t.Errorf("ended %d, %v", ended, err)
		}
		if bad, err := farewell(t.Context(), twos[3]); err != nil || bad.Code != 1008 {
			t.Errorf("got %v, %v", bad, err)
		}
		echoes(t, twos[2])
		refusedWith(t, p, claims("2", "b3"), http.StatusUnauthorized)
		if !p.Restore(Revocation{TokenID: "b3"}) {
			t.Error("not restored")
		}
		mustJoin(t, p, claims("2", "b3"))
	})
}

type revoker struct{ passAll }

func (revoker) Open(s *Session) error {
	_, err := s.proxy.Revoke(Revocation{ID: s.ID()})
	return err
}

// A client that is revoked between the check of its token and its
// registration is not let in.
func TestRevokeWhileOpening(t *testing.T) {
	p, _ := launch(t, members(echo(t), "", ", handlers: [revoke]"), map[string]NewHandler{
		"revoke": func(any) (func() Handler, error) { return func() Handler { return revoker{} }, nil },
	})
	refusedWith(t, p, tokentest.Claims{"sub": "1"}, http.StatusUnauthorized)
	if n := len(p.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// Nor is one that is revoked while its upstream is dialled.
func TestRevokeWhileDialling(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answer
	}))
	t.Cleanup(srv.Close)
	defer close(answer)
	p, _ := launch(t, members(strings.Replace(srv.URL, "http", "ws", 1), "", ""), nil)
	var joined sync.WaitGroup
	joined.Go(func() {
		_, resp, err := join(t, p, tokentest.Claims{"sub": "1"})
		if err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %v %v", resp, err)
		}
	})
	<-asked
	if ended, err := p.Revoke(Revocation{ID: "user_socket:1"}); err != nil || ended != 1 {
		t.Errorf("ended %d, %v", ended, err)
	}
	joined.Wait()
}

// spy answers with what a handler and an upstream learn.
func spy(t *testing.T) (url string, seen func() *http.Request) {
	requests := make(chan *http.Request, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		if r.Header.Get("Upgrade") == "" {
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, _, _ = c.Read(r.Context())
	}))
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "http", "ws", 1), func() *http.Request {
		select {
		case r := <-requests:
			return r
		case <-time.After(patience):
			t.Error("the upstream was not asked")
			return &http.Request{Header: http.Header{}}
		}
	}
}

// What a token says reaches handler and upstream; the token itself does not,
// nor what a client says in its place.
func TestClaimsGoUp(t *testing.T) {
	up, seen := spy(t)
	claims := make(chan map[string]any, 1)
	p, _ := launch(t, members(up, `, headers: {X-User: sub, X-Role: role}, remove_token: true`, ", handlers: [look], http: true"), map[string]NewHandler{
		"look": func(any) (func() Handler, error) {
			return func() Handler { return looker{claims: claims} }, nil
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	signed := tokentest.HS256(t, tokentest.Claims{"sub": "42", "n": 7})
	c, _, err := websocket.Dial(ctx, front(p)+"/x?a=%20&token="+signed+"&b", &websocket.DialOptions{
		HTTPHeader: http.Header{"X-User": {"admin"}, "X_role": {"admin"}, "X-Role": {"admin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := <-claims; got["sub"] != "42" || got["n"] != int64(7) {
		t.Errorf("the handler sees %v", got)
	}
	r := seen()
	if r.RequestURI != "/x?a=%20&b" || !slices.Equal(r.Header["X-User"], []string{"42"}) || r.Header["X-Role"] != nil || r.Header["X_role"] != nil {
		t.Errorf("%s %v goes up", r.RequestURI, r.Header)
	}
	plain, err := http.Get(strings.Replace(front(p), "ws", "http", 1) + "/x?token=" + signed)
	if err != nil {
		t.Fatal(err)
	}
	plain.Body.Close()
	if r := seen(); plain.StatusCode != 200 || r.RequestURI != "/x" || r.Header.Get("X-User") != "42" {
		t.Errorf("plain: got %d, %s %v goes up", plain.StatusCode, r.RequestURI, r.Header)
	}
}

type looker struct {
	passAll
	claims chan map[string]any
}

func (l looker) Open(s *Session) error {
	if s.ID() != "user_socket:42" {
		return &Refusal{Status: http.StatusTeapot}
	}
	l.claims <- s.Claims()
	return nil
}

// A browser gives up a connection whose offer of subprotocols is not answered
// with one of them.
func TestTokenAmongSubprotocols(t *testing.T) {
	signed := tokentest.HS256(t, tokentest.Claims{"sub": "1"})
	phx := tokentest.Raw("", "", []byte(signed))[2:]
	for _, tt := range []struct {
		name  string
		offer []string
		up    string
		told  string
	}{
		{"named", []string{"access_token", signed}, "", "access_token"},
		{"named, the upstream chooses another", []string{"chat", "access_token", signed}, "chat", "chat"},
		{"named, the upstream knows none", []string{"access_token", signed, "other"}, "other", "access_token"},
		{"Phoenix", []string{"phoenix", "base64url.bearer.phx." + phx}, "phoenix", "phoenix"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up, seen := spy(t)
			p, _ := launch(t, members(up, ", remove_token: true", ""), nil)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, _, err := websocket.Dial(ctx, front(p)+"/x", &websocket.DialOptions{Subprotocols: tt.offer})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			if got := seen().Header.Get("Sec-Websocket-Protocol"); got != tt.up || c.Subprotocol() != tt.told {
				t.Errorf("%q goes up and %q is told, want %q and %q", got, c.Subprotocol(), tt.up, tt.told)
			}
			waitUntil(t, "the session to be open", func() bool { return p.Sessions()[0].State() == Open })
			if got := p.Sessions()[0].Subprotocol(); got != tt.told {
				t.Errorf("the session has %q, want %q", got, tt.told)
			}
		})
	}
}

// Wherever a handshake ends, its token is in no line of the log.
func TestTokensAreNotLogged(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(broken.Close)
	core, logs := observer.New(zap.DebugLevel)
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 1s}
pipelines:
  members:
    - jwt: {algorithms: [HS256], secret: %q, from: ["query:token", "header:Authorization", "cookie:t", "protocol"], id: "user_socket:{sub}"}
pipe_through: [members]
routes:
  - {path: /echo, upstream: echo, log: debug, http: true}
  - {path: /refusing, upstream: refusing, http: true}
  - {path: /broken, upstream: broken, http: true}
  - {path: /nowhere, upstream: nowhere, http: true}
upstreams:
  echo: {targets: [%q]}
  refusing: {targets: [%q]}
  broken: {targets: [%q], dial: {attempts: 1}}
  nowhere: {targets: ["ws://127.0.0.1:1"], dial: {attempts: 1}}
`, tokentest.Secret, echo(t), refusing.URL, broken.URL))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	good := tokentest.HS256(t, tokentest.Claims{"sub": "1", "exp": time.Now().Add(time.Hour).Unix()})
	expired := tokentest.HS256(t, tokentest.Claims{"sub": "1", "exp": 1})
	for _, path := range []string{"/echo", "/refusing", "/broken", "/nowhere", "/none", "/%00"} {
		for _, tok := range []string{good, expired, good + "x"} {
			for _, o := range []*websocket.DialOptions{
				{HTTPHeader: http.Header{"Authorization": {"Bearer " + tok}}},
				{HTTPHeader: http.Header{"Cookie": {"t=" + tok}}},
				{Subprotocols: []string{"access_token", tok}},
				nil,
			} {
				url := front(p) + path
				if o == nil {
					url += "?token=" + tok
				}
				dialling, cancel := context.WithTimeout(t.Context(), patience)
				if c, _, err := websocket.Dial(dialling, url, o); err == nil {
					c.Close(websocket.StatusNormalClosure, "")
				}
				cancel()
			}
			if resp, err := http.Get(strings.Replace(front(p), "ws", "http", 1) + path + "?token=" + tok); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if logs.Len() < 40 {
		t.Errorf("only %d lines", logs.Len())
	}
	signature := good[strings.LastIndexByte(good, '.')+1:]
	for _, line := range logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, signature) || strings.Contains(text, good[:30]) {
			t.Errorf("the log holds a token: %s", text)
		}
	}
}

// A reload keeps the keys of an issuer that is not changed.
func TestReloadKeepsKeySets(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := tokentest.NewIssuer(t)
	issuer.Publish(t, map[string]crypto.PublicKey{"one": &key.PublicKey})
	yaml := func(more string) string {
		return fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 1s}
pipelines:
  members: [{jwt: {algorithms: [ES256], jwks: %q, from: ["query:token"]}}]
  others: [{jwt: {algorithms: [ES256], jwks: %q, from: ["query:token"]}}]
routes: [{path: /*, upstream: app, pipe_through: [members, others]}%s]
upstreams: {app: {targets: [%q]}}
`, issuer.URL, issuer.URL, more, echo(t))
	}
	p, _ := launch(t, yaml(""), nil)
	visit := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, front(p)+"/x?token="+tokentest.Sign(t, "ES256", key, "one", tokentest.Claims{}), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.CloseNow()
	}
	visit()
	issuer.Fail(http.StatusInternalServerError)
	for _, more := range []string{"", ", {path: /y, upstream: none, handlers: [unknown]}", ", {path: /y, upstream: app}"} {
		cfg, err := config.Parse("test.yaml", []byte(yaml(more)))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Reload(cfg); (err != nil) != strings.Contains(more, "unknown") {
			t.Fatal(err)
		}
		visit()
	}
	if n := issuer.Fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}
