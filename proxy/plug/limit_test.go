package plug

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stentproxy/stent/config"
)

// session sends a request through h that becomes a session where it is let
// through: its Info must be ended.
func session(h http.Handler, edit func(*http.Request, *Info)) (int, *Info) {
	r, info := request("GET", "/")
	if edit != nil {
		edit(r, info)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, info
}

func TestLimitKeys(t *testing.T) {
	for _, tt := range []struct {
		by          string
		one, other  func(*http.Request, *Info)
		description string
	}{
		{by: "ip", description: "ip",
			one:   func(_ *http.Request, i *Info) { i.ClientIP = netip.MustParseAddr("192.0.2.7") },
			other: func(_ *http.Request, i *Info) { i.ClientIP = netip.MustParseAddr("192.0.2.8") }},
		{by: "id", description: "id",
			one:   func(_ *http.Request, i *Info) { i.ID = "user:1" },
			other: func(_ *http.Request, i *Info) { i.ID = "user:2" }},
		{by: "id", description: "no id",
			one:   func(*http.Request, *Info) {},
			other: func(_ *http.Request, i *Info) { i.ID = "user:2" }},
		{by: "route", description: "route",
			one:   func(_ *http.Request, i *Info) { i.Route = "/a" },
			other: func(_ *http.Request, i *Info) { i.Route = "/b" }},
		{by: "header:x-tenant", description: "header",
			one:   func(r *http.Request, _ *Info) { r.Header.Set("X-Tenant", "a") },
			other: func(r *http.Request, _ *Info) { r.Header.Set("X-Tenant", "b") }},
		{by: "header:X-Tenant", description: "long header",
			one:   func(r *http.Request, _ *Info) { r.Header.Set("X-Tenant", strings.Repeat("a", 5000)+"a") },
			other: func(r *http.Request, _ *Info) { r.Header.Set("X-Tenant", strings.Repeat("a", 5000)+"b") }},
	} {
		t.Run(tt.description, func(t *testing.T) {
			counts := new(Counts)
			h := compile(t, "limit", &config.LimitPlug{Sessions: 1, By: tt.by}, Env{Counts: counts, Pipeline: "p"}).Wrap(ok(nil))
			code, first := session(h, tt.one)
			if code != 200 {
				t.Fatalf("first session got %d", code)
			}
			if code, _ := session(h, tt.one); code != 429 {
				t.Errorf("second session with the same key got %d, want 429", code)
			}
			code, second := session(h, tt.other)
			if code != 200 {
				t.Errorf("session with another key got %d", code)
			}
			first.End()
			first.End()
			if code, third := session(h, tt.one); code != 200 {
				t.Errorf("after the end of the first a session got %d", code)
			} else {
				third.End()
			}
			second.End()
			if len(counts.taken) != 0 {
				t.Errorf("keys are left: %v", counts.taken)
			}
		})
	}
}

func TestLimitTellsWhenToRetry(t *testing.T) {
	h := compile(t, "limit", &config.LimitPlug{Sessions: 1, By: "ip"}, Env{}).Wrap(ok(nil))
	session(h, nil)
	r, _ := request("GET", "/")
	w := status(h, r)
	if w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d with Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
}

// A reload compiles the plugs anew: sessions of before still count, also
// where the number has changed, and pipelines don't count each other's.
func TestLimitSurvivesReload(t *testing.T) {
	counts := new(Counts)
	compileAs := func(pipeline string, sessions int) http.Handler {
		p, err := CompilePipeline([]config.Plug{
			{Name: "limit", Config: &config.LimitPlug{Sessions: sessions, By: "ip"}},
			{Name: "limit", Config: &config.LimitPlug{Sessions: sessions * 2, By: "ip"}},
		}, Env{Counts: counts, Pipeline: pipeline})
		if err != nil {
			t.Fatal(err)
		}
		return p.Wrap(ok(nil))
	}
	before := compileAs("p", 2)
	_, a := session(before, nil)
	_, b := session(before, nil)
	after := compileAs("p", 1)
	if code, _ := session(after, nil); code != 429 {
		t.Errorf("above the new limit got %d", code)
	}
	if code, other := session(compileAs("q", 1), nil); code != 200 {
		t.Errorf("another pipeline got %d", code)
	} else {
		other.End()
	}
	a.End()
	if code, _ := session(after, nil); code != 429 {
		t.Errorf("at the new limit got %d", code)
	}
	b.End()
	if code, c := session(after, nil); code != 200 {
		t.Errorf("below the new limit got %d", code)
	} else {
		c.End()
	}
	// Those that the second limit's neighbour refused must not stay counted.
	if len(counts.taken) != 0 {
		t.Errorf("keys are left: %v", counts.taken)
	}
}

func TestLimitIsExact(t *testing.T) {
	const most, clients, rounds = 7, 16, 500
	counts := new(Counts)
	var open, peak, refused atomic.Int64
	inside := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := open.Add(1)
		for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
		}
		From(r).OnEnd(func() { open.Add(-1) })
	})
	h := compile(t, "limit", &config.LimitPlug{Sessions: most, By: "ip"}, Env{Counts: counts, Pipeline: "p"}).Wrap(inside)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range rounds {
				code, info := session(h, nil)
				if code == 429 {
					refused.Add(1)
				}
				info.End()
			}
		})
	}
	all.Wait()
	if peak.Load() > most {
		t.Errorf("%d sessions at once, want at most %d", peak.Load(), most)
	}
	if len(counts.taken) != 0 {
		t.Errorf("keys are left: %v", counts.taken)
	}

	// All at once: exactly most get in.
	var admitted atomic.Int64
	infos := make([]*Info, clients)
	for i := range clients {
		all.Go(func() {
			code, info := session(h, nil)
			if code == 200 {
				admitted.Add(1)
			}
			infos[i] = info
		})
	}
	all.Wait()
	if admitted.Load() != most {
		t.Errorf("%d admitted, want %d", admitted.Load(), most)
	}
	for _, info := range infos {
		info.End()
	}
	if len(counts.taken) != 0 {
		t.Errorf("keys are left: %v", counts.taken)
	}
}

func BenchmarkLimit(b *testing.B) {
	counts := new(Counts)
	name := countName{pipeline: "p", by: "ip"}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			name := name
			name.key = fmt.Sprint(i % 1000)
			if counts.take(name, 1<<30) {
				counts.release(name)
			}
		}
	})
}
