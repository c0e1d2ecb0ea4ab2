package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy/testbackend"
	"github.com/stentproxy/stent/proxy/upstream"
)

// doorman is a backend that notes when each handshake came.
type doorman struct {
	http.Handler
	mu   sync.Mutex
	came []time.Time
}

func (d *doorman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.came = append(d.came, time.Now())
	d.mu.Unlock()
	d.Handler.ServeHTTP(w, r)
}

// busiest returns the most handshakes that came within any window.
func (d *doorman) busiest(window time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortFunc(d.came, time.Time.Compare)
	most, from := 0, 0
	for to, at := range d.came {
		for at.Sub(d.came[from]) > window {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

func (d *doorman) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.came)
}

// TestSoakRedialStorm kills the backend of many sessions and counts how they
// come to the one that follows.
func TestSoakRedialStorm(t *testing.T) {
	sessions, rate := 200, 80
	if soak(t) > 0 {
		sessions, rate = 2000, 250
	}
	if raceDetector {
		sessions, rate = 60, 40
	}
	ledger := testbackend.NewLedger()
	config := testbackend.Config{Push: time.Second, Sizes: small}
	old := &site{t: t, config: config, ledger: ledger, network: "tcp"}
	var target string
	old.listen, target = address(t, "tcp")
	old.start()
	t.Cleanup(old.kill)
	next, nextTarget := address(t, "tcp")
	p, _ := launch(t, fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 2s}
routes: [{path: /*, upstream: app, continuity: {hold: 60s, backoff: {max: 500ms}}}]
upstreams: {app: {targets: [%q, %q], redial_rate: %d, dial: {timeout: 20s}}}
`, target, nextTarget, rate), nil)
	s := newSwarm(t, ledger)
	s.join(sessions, "ws://"+p.Addrs()[0].String(), testbackend.ClientConfig{Every: 200 * time.Millisecond, Sizes: small})
	s.rest("connected")
	before := load()

	var peak footprint
	server := &testbackend.Server{Config: config, Book: ledger.Add}
	door := &doorman{Handler: server}
	srv := &http.Server{Handler: door}
	t.Cleanup(func() {
		server.Close(websocket.StatusGoingAway, "")
		srv.Close()
	})
	watched, stop := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		for sleep(watched, 20*time.Millisecond) {
			peak = peak.max(load())
		}
	})
	redials := time.Duration(float64(sessions) / float64(rate) * float64(time.Second))
	s.during("storm", redials+longestPause(p.Config().Routes[0].Continuity.Backoff, 0), func() {
		old.kill()
		l, err := net.Listen("tcp", next)
		if err != nil {
			t.Fatal(err)
		}
		go srv.Serve(l)
	})
	stop()
	watch.Wait()
	s.check()

	for _, window := range []time.Duration{time.Second, 250 * time.Millisecond} {
		// A quarter second's worth may come at once, and what a busy machine
		// is late with comes in the next window.
		allowed := float64(rate) * (window + 250*time.Millisecond + 10*s.late.worst()).Seconds()
		most := door.busiest(window)
		t.Logf("at most %d dials within %v, %.0f are allowed", most, window, allowed)
		if float64(most) > allowed+1 {
			t.Errorf("%d dials within %v, want %.0f at most", most, window, allowed)
		}
	}
	t.Logf("%d dials for %d sessions; before %v, at the peak %v", door.count(), sessions, before, peak)
	if n := door.count(); n != sessions {
		t.Errorf("%d dials for %d sessions", n, sessions)
	}
	// The client's end of each session is here too, and the backend's.
	if more := peak.goroutines - before.goroutines; more > 8*sessions+100 {
		t.Errorf("%d goroutines more for %d sessions", more, sessions)
	}
	if more := peak.heap - before.heap; more > int64(sessions)*(128<<10)+(32<<20) {
		t.Errorf("%d bytes more for %d sessions", more, sessions)
	}
}

// footprint is what a process takes.
type footprint struct {
	goroutines int
	heap       int64
}

func load() footprint {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{runtime.NumGoroutine(), int64(m.HeapAlloc)}
}

func (f footprint) max(g footprint) footprint {
	return footprint{max(f.goroutines, g.goroutines), max(f.heap, g.heap)}
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines and %d MiB", f.goroutines, f.heap>>20)
}

// TestSoakPanics lets workers panic at random points while their upstreams
// come and go: whoever has a whole stream goes on.
func TestSoakPanics(t *testing.T) {
	for name, route := range map[string]string{"relay": "", "message": "handlers: [pass]"} {
		t.Run(name, func(t *testing.T) {
			if soak(t) == 0 {
				t.Parallel()
			}
			playPanics(t, route)
		})
	}
}

func playPanics(t *testing.T, route string) {
	sessions, length := 50, 2*time.Second
	if d := soak(t); d > 0 {
		sessions, length = 300, d/5
	}
	if raceDetector {
		sessions /= 3
	}
	ledger := testbackend.NewLedger()
	server := &testbackend.Server{Book: ledger.Add, Config: testbackend.Config{Push: 50 * time.Millisecond, Sizes: medium, Fragments: 2}}
	srv := httptest.NewServer(server)
	t.Cleanup(func() {
		server.Close(websocket.StatusGoingAway, "")
		srv.Close()
	})
	var calm atomic.Bool
	var panics [faultRun + 1]atomic.Int64
	var reads atomic.Int64
	p, _ := launch(t, fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 2s}
routes:
  - path: /*
    upstream: app
    keepalive: {interval: 0s}
    continuity: {hold: 60s, max_restarts: 1000000, backoff: {min: 1ms, max: 20ms}}
    %s
upstreams: {app: {targets: [%q], dial: {timeout: 20s}}}
`, route, "ws://"+srv.Listener.Addr().String()), testHandlers, func(p *Proxy) {
		p.fault = func(_ *Session, at faultPoint) {
			if !calm.Load() && rand.IntN(5) == 0 {
				panics[at].Add(1)
				panic("a test's own fault")
			}
		}
		p.pools = upstream.NewPools(upstream.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &explosive{Conn: conn, calm: &calm, count: &reads}, nil
		}})
		p.pools.Apply(p.Snapshot().pools)
	})
	s := newSwarm(t, ledger)
	s.join(sessions, "ws://"+p.Addrs()[0].String(), testbackend.ClientConfig{Every: 20 * time.Millisecond, Sizes: medium, Fragments: 2})
	time.Sleep(length / 2)
	server.Close(websocket.StatusServiceRestart, "restarting")
	time.Sleep(length / 2)
	calm.Store(true)
	s.during("panics", 0, func() {})
	s.cutOff = true
	s.check()
	var at []int64
	for i := range panics {
		at = append(at, panics[i].Load())
		if at[i] == 0 {
			t.Errorf("nobody panicked at point %d", i)
		}
	}
	t.Logf("%v panics by point, %d while reading an upstream", at, reads.Load())
	if n := sessionsOn(p, "app"); n[srv.Listener.Addr().String()] != sessions {
		t.Errorf("sessions by target: %v, want %d", n, sessions)
	}
}

// explosive is a connection whose Read panics now and then, before it reads.
type explosive struct {
	net.Conn
	calm  *atomic.Bool
	count *atomic.Int64
	armed bool // a first read was good: what dials is not what is tested
}

// Read implements net.Conn.
func (e *explosive) Read(p []byte) (int, error) {
	if e.armed && !e.calm.Load() && rand.IntN(50) == 0 {
		e.count.Add(1)
		panic("a test's own fault")
	}
	n, err := e.Conn.Read(p)
	e.armed = n > 0
	return n, err
}

// Hundreds of sessions that fail without end must not delay the restart of a
// healthy one.
func TestFailingNeighbours(t *testing.T) {
	neighbours := 300
	if raceDetector {
		neighbours = 60
	}
	// Theirs accepts and closes at once, and their workers panic.
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.CloseNow()
		}
	}))
	defer bad.Close()
	ledger := testbackend.NewLedger()
	server := &testbackend.Server{Book: ledger.Add, Config: testbackend.Config{Push: 50 * time.Millisecond}}
	good := httptest.NewServer(server)
	defer good.Close()
	var failures atomic.Int64
	p, _ := launch(t, fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 2s}
supervisor: {partitions: 1}
routes:
  - {path: /bad, upstream: bad, continuity: {max_restarts: 1000000, backoff: {min: 50ms, max: 100ms}}}
  - {path: /good, upstream: good, continuity: {max_restarts: 1000}}
upstreams:
  bad: {targets: [%q], dial: {timeout: 20s}}
  good: {targets: [%q], dial: {timeout: 20s}}
`, "ws://"+bad.Listener.Addr().String(), "ws://"+good.Listener.Addr().String()), nil, func(p *Proxy) {
		p.fault = func(s *Session, at faultPoint) {
			if s.Upstream() != "bad" || at != faultServe {
				return
			}
			failures.Add(1)
			if rand.IntN(10) == 0 {
				panic("a test's own fault")
			}
		}
	})
	url := "ws://" + p.Addrs()[0].String()
	for range neighbours {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, _, err := websocket.Dial(ctx, url+"/bad", nil)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
	}
	s := newSwarm(t, ledger)
	s.join(4, url+"/good", testbackend.ClientConfig{Every: 10 * time.Millisecond})
	before, from := failures.Load(), time.Now()
	pause := longestPause(p.Config().Routes[1].Continuity.Backoff, 0)
	for range 5 {
		s.during("restart among failures", pause, func() { server.Close(websocket.StatusServiceRestart, "") })
	}
	t.Logf("%.0f failures a second meanwhile", float64(failures.Load()-before)/time.Since(from).Seconds())
	if failures.Load()-before < int64(neighbours) {
		t.Errorf("the neighbours have failed only %d times", failures.Load()-before)
	}
	s.check()
	server.Close(websocket.StatusGoingAway, "")
}
