package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/stentproxy/stent/config"
)

// TestReloadKeepsCounts reloads with other weights, names, order and
// policies while sessions are open.
func TestReloadKeepsCounts(t *testing.T) {
	one, two := listen(t, welcome), listen(t, welcome)
	pools := NewPools(Options{})
	u := upstreamOf(one.url(), two.url())
	p := update(t, pools, u)
	a, b := open(t, p), open(t, p)
	defer a.Close()
	defer b.Close()
	if a.Target == b.Target {
		t.Fatal("two sessions on one of two targets")
	}

	u = config.Upstream{
		Targets: []config.Target{{URL: two.url(), Weight: 9, Name: "blue"}, {URL: one.url(), Weight: 1}},
		Balance: config.Balance{Kind: config.BalanceRandom}, MaxSessions: 1,
	}
	if q := update(t, pools, u); q != p {
		t.Fatal("a reload made another pool")
	}
	if got := targetNamed(t, pools, "blue"); got.Sessions != 1 || got.Dials != 1 || got.URL != two.url() {
		t.Errorf("got %+v, want the counts kept", got)
	}
	if _, err := p.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrNoTarget) {
		t.Errorf("got %v, want both full", err)
	}
}

// TestRemovedTargetDrains takes a target, then the pool, out of the config
// and brings them back while a session is on each.
func TestRemovedTargetDrains(t *testing.T) {
	one, two := listen(t, welcome), listen(t, welcome)
	pools := NewPools(Options{})
	p := update(t, pools, upstreamOf(one.url(), two.url()))
	a, b := open(t, p), open(t, p)
	if a.Target.Address() != one.url() {
		a, b = b, a
	}
	defer b.Close()

	changed := pools.Changed()
	update(t, pools, upstreamOf(two.url()))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if got := pools.Leaving(); !slices.Equal(got, []*Target{a.Target}) {
		t.Errorf("leaving %v", got)
	}
	for range 5 {
		c := open(t, p)
		if c.Target == a.Target {
			t.Error("a removed target was picked")
		}
		c.Close()
	}
	if err := pools.Drain("app", a.Target.Name()); err != nil {
		t.Errorf("drain of what drains: %v", err)
	}
	if err := pools.Undrain("app", a.Target.Name()); !errors.Is(err, ErrUnknown) {
		t.Errorf("undrain of what is gone: %v", err)
	}

	update(t, pools, upstreamOf(one.url(), two.url()))
	if a.Target.Leaving() || a.Target.State() != Up || p.targets[0] != a.Target {
		t.Error("a target that came back is not the one that left")
	}

	if err := pools.Update(nil); err != nil {
		t.Fatal(err)
	}
	if pools.Get("app") != nil {
		t.Error("a removed pool can be had")
	}
	if _, err := p.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrNoTarget) {
		t.Errorf("dial of a removed pool: %v", err)
	}
	if got := pools.Snapshot(); len(got) != 1 || len(got[0].Targets) != 2 || got[0].Targets[0].State != Draining {
		t.Errorf("got %+v, want both draining", got)
	}
	if len(pools.Leaving()) != 2 {
		t.Errorf("leaving %v", pools.Leaving())
	}
	a.Close()
	if q := update(t, pools, upstreamOf(two.url())); q != p {
		t.Error("a pool that came back is not the one that left")
	}
	b.Close()
	if err := pools.Update(nil); err != nil {
		t.Fatal(err)
	}
	if got := pools.Snapshot(); len(got) != 0 {
		t.Errorf("got %+v, want nothing", got)
	}
}

func TestDrain(t *testing.T) {
	one, two := listen(t, welcome), listen(t, welcome)
	pools := NewPools(Options{})
	u := upstreamOf(one.url(), two.url())
	u.Targets[0].Name = "blue"
	p := update(t, pools, u)
	a, b := open(t, p), open(t, p)
	defer a.Close()
	defer b.Close()
	changed := pools.Changed()
	if err := pools.Drain("app", "blue"); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got := targetNamed(t, pools, "blue"); got.State != Draining || got.Sessions != 1 {
		t.Errorf("got %+v", got)
	}
	if got := pools.Leaving(); len(got) != 1 || got[0].Name() != "blue" || got[0].Pool() != p {
		t.Errorf("leaving %v", got)
	}
	update(t, pools, u) // a reload does not undo it
	for range 5 {
		c := open(t, p)
		defer c.Close()
		if c.Target.Name() == "blue" {
			t.Fatal("a draining target was picked")
		}
	}
	if err := pools.Undrain("app", "blue"); err != nil {
		t.Fatal(err)
	}
	c := open(t, p)
	defer c.Close()
	if c.Target.Name() != "blue" || len(pools.Leaving()) != 0 {
		t.Errorf("undrained, but %s was picked; leaving %v", c.Target.Name(), pools.Leaving())
	}
	if err := pools.Drain("app", "green"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if err := pools.Drain("nope", "blue"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotJSON(t *testing.T) {
	pools := NewPools(Options{})
	u := upstreamOf("ws://10.0.0.1:4000/x", "unix:/run/app.sock")
	u.Targets[0].Name = "blue"
	update(t, pools, u)
	got, err := json.Marshal(pools.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"app","balance":"least_sessions","targets":[` +
		`{"name":"blue","url":"ws://10.0.0.1:4000/x","state":"up","sessions":0,"dials":0,"failures":0},` +
		`{"name":"unix:/run/app.sock","url":"unix:/run/app.sock","state":"up","sessions":0,"dials":0,"failures":0}]}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, err := json.Marshal(NewPools(Options{}).Snapshot()); err != nil || string(got) != "[]" {
		t.Errorf("no pools: %s, %v", got, err)
	}
}

func TestPrepareNamesTheKey(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*config.Upstream)
		want   []string // paths
	}{
		{"good", func(*config.Upstream) {}, nil},
		{"no targets", func(u *config.Upstream) { u.Targets = nil }, []string{"targets"}},
		{"two bad URLs", func(u *config.Upstream) {
			u.Targets = append(u.Targets, config.Target{URL: "ftp://x"}, config.Target{URL: "10.0.0.1:80"})
		}, []string{"targets[1]", "targets[2]"}},
		{"twice the same", func(u *config.Upstream) {
			u.Targets = append(u.Targets, config.Target{URL: "http://10.0.0.1:80/", Name: "other"})
		}, []string{"targets[1]"}},
		{"a name twice", func(u *config.Upstream) {
			u.Targets = append(u.Targets, config.Target{URL: "ws://10.0.0.2", Name: "10.0.0.1:80"})
		}, []string{"targets[1]"}},
		{"hash key", func(u *config.Upstream) { u.Balance = config.Balance{Kind: config.BalanceHash, Key: "query"} }, []string{"balance.hash"}},
		{"health path", func(u *config.Upstream) { u.Health = &config.Health{Path: "healthz"} }, []string{"health.path"}},
		{"health path of two lines", func(u *config.Upstream) { u.Health = &config.Health{Path: "/\r\nX: y"} }, []string{"health.path"}},
		{"no CA", func(u *config.Upstream) { u.TLS.CA = "/nowhere/ca.pem" }, []string{"tls.ca"}},
		{"CA without certificate", func(u *config.Upstream) { u.TLS.CA = junk }, []string{"tls.ca"}},
		{"cert alone", func(u *config.Upstream) { u.TLS.Cert = junk }, []string{"tls.cert"}},
		{"key alone", func(u *config.Upstream) { u.TLS.Key = junk }, []string{"tls.key"}},
		{"bad pair, and more", func(u *config.Upstream) {
			u.TLS = config.UpstreamTLS{CA: junk, Cert: junk, Key: junk}
			u.Targets[0].URL = "ws://"
		}, []string{"targets[0]", "tls.ca", "tls.cert"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pools := NewPools(Options{})
			update(t, pools, upstreamOf("ws://10.9.9.9"))
			u := upstreamOf("ws://10.0.0.1")
			tt.change(&u)
			err := pools.Update(map[string]config.Upstream{"app": u, "fine": upstreamOf("ws://10.0.0.1")})
			var got []string
			for _, e := range keyErrors(err) {
				got = append(got, e.Path)
			}
			for i := range tt.want {
				tt.want[i] = "upstreams.app." + tt.want[i]
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v: %v", got, tt.want, err)
			}
			if err != nil && (pools.Get("fine") != nil || targetNamed(t, pools, "10.9.9.9:80").State != Up) {
				t.Error("a bad config touched the running pools")
			}
		})
	}
}

// keyErrors returns the KeyErrors in a tree of errors, in order.
func keyErrors(err error) []*config.KeyError {
	switch e := err.(type) {
	case nil:
		return nil
	case *config.KeyError:
		return []*config.KeyError{e}
	case interface{ Unwrap() []error }:
		var all []*config.KeyError
		for _, err := range e.Unwrap() {
			all = append(all, keyErrors(err)...)
		}
		return all
	}
	panic(fmt.Sprintf("%T in the tree: %v", err, err))
}

func TestNewSource(t *testing.T) {
	tests := []struct{ in, name, url, dial, host, path, called string }{
		{"ws://a", "", "ws://a:80", "a:80", "a", "", "a:80"},
		{"wss://a/", "a:443", "wss://a:443", "a:443", "a", "", "a:443"},
		{"http://a:81/x/", "blue", "ws://a:81/x", "a:81", "a:81", "/x", "blue"},
		{"https://a:80/x%2Fy", "", "wss://a:80/x%2Fy", "a:80", "a:80", "/x%2Fy", "a:80"},
		{"ws://[::1]:9000", "", "ws://[::1]:9000", "[::1]:9000", "[::1]:9000", "", "[::1]:9000"},
		{"ws://[::1]", "", "ws://[::1]:80", "[::1]:80", "[::1]", "", "[::1]:80"},
		{"unix:/run/x", "", "unix:/run/x", "/run/x", "localhost", "", "unix:/run/x"},
		{"dns+ws://a:81/x", "", "", "", "a:81", "/x", ""},
		{"dns+ws://a:81/x", "blue", "", "", "a:81", "/x", "blue"},
		{"srv+wss://_ws._tcp.a", "", "", "", "", "", ""},
	}
	for _, tt := range tests {
		s, err := newSource(config.Target{URL: tt.in, Name: tt.name})
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		a := s.template
		if a.url != tt.url || a.dial != tt.dial || a.host != tt.host || a.path != tt.path || s.name != tt.called {
			t.Errorf("%s: got %+v named %q, want %+v", tt.in, a, s.name, tt)
		}
	}
	if _, err := newSource(config.Target{URL: "ftp://a"}); err == nil {
		t.Error("ftp is taken for a target")
	}
}

func TestMetrics(t *testing.T) {
	good := listen(t, welcome)
	pools := NewPools(Options{})
	u := upstreamOf(good.url(), nobody(t))
	u.Targets[0].Name, u.Targets[1].Name = "good", "bad"
	p := update(t, pools, u)
	for range 3 {
		c, err := p.Dial(t.Context(), &Handshake{Prefer: p.targets[1]})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := pools.Drain("app", "bad"); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(pools); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			// The registry orders labels by name: result or target come first.
			key := family.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				got[key] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				got[key] = m.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				got[key] = float64(m.Histogram.GetSampleCount())
			default:
				t.Errorf("%s is a %v", key, family.GetType())
			}
		}
	}
	for key, want := range map[string]float64{
		"stent_upstream_dials_total ok app":       3,
		"stent_upstream_dials_total failed app":   3,
		"stent_upstream_dials_total timeout app":  0,
		"stent_upstream_dial_seconds":             3,
		"stent_upstream_target_up good app":       1,
		"stent_upstream_target_up bad app":        0,
		"stent_upstream_target_sessions good app": 3,
		"stent_upstream_target_sessions bad app":  0,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", key, v, ok, want)
		}
	}
}
