package token

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// patience bounds whatever a test waits for.
const patience = 10 * time.Second

// jwks is a key set that is fetched often.
func jwks(url string) *config.JWKS {
	return &config.JWKS{URL: url, Refresh: config.Duration(time.Hour), Cooldown: config.Duration(50 * time.Millisecond), Timeout: config.Duration(patience)}
}

// serve runs sets until the test ends.
func serve(t *testing.T, sets *Sets) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := sets.Serve(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// started is a verifier whose key set is served.
func started(t *testing.T, c *config.JWKS, sets *Sets) (*Verifier, *Set) {
	t.Helper()
	v, set, err := NewVerifier(&config.JWTPlug{Algorithms: []string{"RS256", "ES256"}, JWKS: c}, sets)
	if err != nil {
		t.Fatal(err)
	}
	sets.Apply([]*Set{set})
	return v, set
}

func signedBy(t *testing.T, kid string) string {
	return tokentest.Sign(t, "ES256", testKeys().p256, kid, tokentest.Claims{"sub": "1"})
}

func public(ids ...string) map[string]crypto.PublicKey {
	keys := make(map[string]crypto.PublicKey)
	for _, id := range ids {
		keys[id] = &testKeys().p256.PublicKey
	}
	return keys
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A rotated key is found without a restart, at the first token that names it.
func TestRotation(t *testing.T) {
	issuer := tokentest.NewIssuer(t)
	issuer.Publish(t, public("one"))
	sets := NewSets(nil)
	v, _ := started(t, jwks(issuer.URL), sets)
	serve(t, sets)
	for _, kid := range []string{"one", ""} { // the first waits for the first fetch
		if _, err := v.Verify(t.Context(), signedBy(t, kid)); err != nil {
			t.Fatalf("kid %q: %v", kid, err)
		}
	}
	issuer.Publish(t, public("two"))
	waitFor(t, "a token of the new key", func() bool {
		_, err := v.Verify(t.Context(), signedBy(t, "two"))
		return err == nil
	})
	if _, err := v.Verify(t.Context(), signedBy(t, "one")); !refused(err, "trusted") {
		t.Errorf("a key that is withdrawn: got %v", err)
	}
}

// Keys are fetched again from time to time, without any token.
func TestRefresh(t *testing.T) {
	issuer := tokentest.NewIssuer(t)
	issuer.Publish(t, public("one"))
	c := jwks(issuer.URL)
	c.Refresh = config.Duration(10 * time.Millisecond)
	sets := NewSets(nil)
	started(t, c, sets)
	serve(t, sets)
	waitFor(t, "three fetches", func() bool { return issuer.Fetches.Load() >= 3 })
}

// The last good keys are used while the issuer is down, or answers nonsense;
// a bad answer never takes a good one's place.
func TestOutage(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an error":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a page":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no keys":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"only secrets": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`) },
		"too much":     func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxSet+1)) },
		"half of it": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"keys":[`)
		},
		"a reset": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			issuer := tokentest.NewIssuer(t)
			issuer.Publish(t, public("one"))
			c := jwks(issuer.URL)
			c.Refresh = config.Duration(20 * time.Millisecond)
			core, logs := observer.New(zap.WarnLevel)
			sets := NewSets(zap.New(core))
			v, _ := started(t, c, sets)
			serve(t, sets)
			if _, err := v.Verify(t.Context(), signedBy(t, "one")); err != nil {
				t.Fatal(err)
			}
			issuer.Serve(answer)
			waitFor(t, "a failed fetch", func() bool { return logs.Len() >= 2 })
			if _, err := v.Verify(t.Context(), signedBy(t, "one")); err != nil {
				t.Errorf("during the outage: %v", err)
			}
			issuer.Publish(t, public("two"))
			waitFor(t, "a token of the new key", func() bool {
				_, err := v.Verify(t.Context(), signedBy(t, "two"))
				return err == nil
			})
		})
	}
}

// With an issuer that was never reached nothing is admitted, and nobody
// waits but for the first fetch; it is found once it is there.
func TestOutageAtTheStart(t *testing.T) {
	issuer := tokentest.NewIssuer(t)
	sets := NewSets(nil)
	v, _ := started(t, jwks(issuer.URL), sets)
	serve(t, sets)
	for range 3 {
		if _, err := v.Verify(t.Context(), signedBy(t, "one")); !errors.Is(err, ErrNoKeys) {
			t.Errorf("got %v", err)
		}
	}
	issuer.Publish(t, public("one"))
	waitFor(t, "keys", func() bool {
		_, err := v.Verify(t.Context(), signedBy(t, "one"))
		return err == nil
	})
}

// Whoever makes key ids up causes a fetch in a cooldown at most, and does not
// wait for one.
func TestMadeUpKeyIDs(t *testing.T) {
	issuer := tokentest.NewIssuer(t)
	issuer.Publish(t, public("one"))
	c := jwks(issuer.URL)
	c.Cooldown = config.Duration(time.Hour)
	sets := NewSets(nil)
	v, _ := started(t, c, sets)
	serve(t, sets)
	if _, err := v.Verify(t.Context(), signedBy(t, "one")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if _, err := v.Verify(t.Context(), signedBy(t, fmt.Sprint("made up ", i))); !refused(err, "trusted") {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if n := issuer.Fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

// A slow issuer holds its clients no longer than they stay.
func TestClientThatLeaves(t *testing.T) {
	issuer := tokentest.NewIssuer(t)
	release := make(chan struct{})
	defer close(release)
	issuer.Serve(func(http.ResponseWriter, *http.Request) { <-release })
	sets := NewSets(nil)
	v, _ := started(t, jwks(issuer.URL), sets)
	stop := serve(t, sets)
	ctx, cancel := context.WithCancel(t.Context())
	waitFor(t, "a fetch", func() bool { return issuer.Fetches.Load() == 1 })
	cancel()
	if _, err := v.Verify(ctx, signedBy(t, "one")); !errors.Is(err, ErrNoKeys) {
		t.Errorf("got %v", err)
	}
	stop() // nor does it hold the end of the process
}

// A set that is not changed by a reload keeps its keys and is fetched no more;
// one that is gone is fetched no more either, and holds nobody up.
func TestReload(t *testing.T) {
	issuer, other := tokentest.NewIssuer(t), tokentest.NewIssuer(t)
	issuer.Publish(t, public("one"))
	other.Publish(t, public("one"))
	sets := NewSets(nil)
	v, set := started(t, jwks(issuer.URL), sets)
	serve(t, sets)
	if _, err := v.Verify(t.Context(), signedBy(t, "one")); err != nil {
		t.Fatal(err)
	}
	if again, err := sets.Get(*jwks(issuer.URL)); err != nil || again != set {
		t.Errorf("the same configuration has another set, %v", err)
	}
	sets.Apply([]*Set{set})
	next, nextSet := started(t, jwks(other.URL), sets)
	if _, err := next.Verify(t.Context(), signedBy(t, "one")); err != nil {
		t.Error(err)
	}
	if nextSet == set {
		t.Error("another configuration has the same set")
	}
	// A request that still has the old configuration.
	if _, err := v.Verify(t.Context(), signedBy(t, "one")); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), signedBy(t, "two")); !refused(err, "trusted") {
		t.Errorf("got %v", err)
	}
	if n := issuer.Fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

// What is not a key for signatures is left out, and what says its algorithm is
// for no other.
func TestParseSet(t *testing.T) {
	list, err := parseSet([]byte(`{"keys":[
		{"kty":"oct","k":"c2VjcmV0","kid":"secret"},
		{"kty":"new","kid":"unknown"},
		{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"sig","use":"sig"},
		{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"enc","use":"enc"},
		{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"alg","alg":"ES256"},
		{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","kid":"private"}
	]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, k := range list {
		got[k.id] = k.suits("EdDSA")
	}
	if len(got) != 2 || !got["sig"] || got["alg"] {
		t.Errorf("got %v", got)
	}
}
