package proxy

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/testbackend"
)

// fleet is backends called a, b, … and clients of a proxy in front of them.
type fleet struct {
	*swarm
	proxy   *Proxy
	logs    *observer.ObservedLogs
	servers map[string]*testbackend.Server
	targets map[string]string // as a configuration has them
	route   string            // keys of the route
	pool    string            // keys of the pool
	plain   []*websocket.Conn
}

// newFleet runs backends by their names, and a proxy that knows the first
// few of them.
func newFleet(t *testing.T, route, pool string, names string, known int) *fleet {
	t.Helper()
	f := &fleet{swarm: newSwarm(t, testbackend.NewLedger()), servers: make(map[string]*testbackend.Server),
		targets: make(map[string]string), route: route, pool: pool}
	for _, name := range strings.Split(names, "") {
		server := &testbackend.Server{Book: f.ledger.Add} // it says nothing unasked: CloseRead takes that ill
		srv := httptest.NewServer(server)
		t.Cleanup(func() {
			server.Close(websocket.StatusGoingAway, "")
			srv.Close()
		})
		f.servers[name] = server
		f.targets[name] = fmt.Sprintf("{name: %s, url: %q}", name, "ws://"+srv.Listener.Addr().String())
	}
	f.proxy, f.logs = launch(t, f.yaml(names[:known]), nil)
	t.Cleanup(func() {
		for _, c := range f.plain {
			c.CloseNow()
		}
	})
	return f
}

// yaml is a configuration with some of the targets.
func (f *fleet) yaml(names string) string {
	var targets []string
	for _, name := range strings.Split(names, "") {
		targets = append(targets, f.targets[name])
	}
	return fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 200ms}
routes: [{path: /*, upstream: app%s}]
upstreams: {app: {targets: [%s], dial: {timeout: 20s}%s}}
`, f.route, strings.Join(targets, ", "), f.pool)
}

// know reloads the configuration with other targets.
func (f *fleet) know(names string) {
	f.t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(f.yaml(names)))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.proxy.Reload(cfg); err != nil {
		f.t.Fatal(err)
	}
}

// dial opens a session whose client says nothing, and returns when a backend
// has it.
func (f *fleet) dial(path string, header http.Header) (status int) {
	f.t.Helper()
	before := f.total()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+f.proxy.Addrs()[0].String()+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil && resp == nil {
		f.t.Fatal(err)
	}
	if err == nil {
		c.CloseRead(context.Background())
		f.plain = append(f.plain, c)
		waitUntil(f.t, "a backend has the session", func() bool { return f.total() > before })
	}
	return resp.StatusCode
}

func (f *fleet) total() int {
	sum := 0
	for _, n := range f.spread() {
		sum += n
	}
	return sum
}

// spread is how many sessions are on each backend, as they see it.
func (f *fleet) spread() map[string]int {
	n := make(map[string]int)
	for name, s := range f.servers {
		n[name] = s.Len()
	}
	return n
}

// settled waits until the backends have what is wanted.
func (f *fleet) settled(what string, ok func(map[string]int) bool) {
	f.t.Helper()
	deadline := time.Now().Add(3 * patience)
	for !ok(f.spread()) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: %v", what, f.spread())
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.t.Logf("%s: %v", what, f.spread())
}

// difference is how many sessions the fullest has more than the emptiest.
func difference(n map[string]int) int {
	counts := slices.Collect(maps.Values(n))
	return slices.Max(counts) - slices.Min(counts)
}

// The spread of sessions over three targets, for each algorithm.
func TestSpread(t *testing.T) {
	const sessions = 150
	each := sessions / 3.0
	// What chance allows: five standard deviations.
	chance := 5 * math.Sqrt(sessions*(1/3.0)*(2/3.0))
	for _, tt := range []struct {
		balance string
		weights [3]int
		client  func(i int) (path string, header http.Header)
		within  float64 // of the even share
	}{
		{balance: "least_sessions", within: 0},
		{balance: "round_robin", within: 0},
		{balance: "random", within: chance},
		{balance: "p2c", within: 3},
		{balance: "least_sessions", weights: [3]int{1, 2, 3}, within: 1},
		{balance: "round_robin", weights: [3]int{1, 2, 3}, within: 0},
		{balance: "random", weights: [3]int{1, 2, 3}, within: chance},
		{balance: "p2c", weights: [3]int{1, 2, 3}, within: chance},
		{balance: "{hash: path}", within: chance, client: func(i int) (string, http.Header) { return fmt.Sprintf("/%d", i), nil }},
		{balance: `{hash: "query:room"}`, within: chance, client: func(i int) (string, http.Header) { return fmt.Sprintf("/?a;b&room=%d", i), nil }},
		{balance: `{hash: "header:X-Key"}`, within: chance, client: func(i int) (string, http.Header) {
			return "/", http.Header{"X-Key": {fmt.Sprint(i)}}
		}},
		{balance: `{hash: "cookie:c"}`, within: chance, client: func(i int) (string, http.Header) {
			return "/", http.Header{"Cookie": {fmt.Sprintf("a=b; c=%d", i)}}
		}},
	} {
		t.Run(fmt.Sprint(tt.balance, tt.weights), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, "", ", balance: "+tt.balance, "abc", 3)
			sum := 0
			for i, name := range []string{"a", "b", "c"} {
				if tt.weights[i] == 0 {
					tt.weights[i] = 1
				}
				sum += tt.weights[i]
				f.targets[name] = strings.Replace(f.targets[name], "}", fmt.Sprintf(", weight: %d}", tt.weights[i]), 1)
			}
			f.know("abc")
			for i := range sessions {
				path, header := "/", http.Header(nil)
				if tt.client != nil {
					path, header = tt.client(i)
				}
				if status := f.dial(path, header); status != http.StatusSwitchingProtocols {
					t.Fatalf("session %d is answered %d", i, status)
				}
			}
			got := f.spread()
			t.Logf("%s %v: %v", tt.balance, tt.weights, got)
			for i, name := range []string{"a", "b", "c"} {
				share := 3 * each * float64(tt.weights[i]) / float64(sum)
				if off := math.Abs(float64(got[name]) - share); off > tt.within {
					t.Errorf("%s has %d sessions, want %.0f within %.0f", name, got[name], share, tt.within)
				}
			}
		})
	}
}

// One key stays on one target, also at a redial and after another target
// has joined, which takes over no more than its share.
func TestSpreadByHash(t *testing.T) {
	const keys = 90
	f := newFleet(t, "", `, balance: {hash: "query:room"}`, "abcd", 3)
	home := func(room int) string {
		before := f.spread()
		f.dial(fmt.Sprintf("/?room=%d", room), nil)
		for name, n := range f.spread() {
			if n > before[name] {
				return name
			}
		}
		t.Fatalf("room %d is nowhere", room)
		return ""
	}
	homes := make([]string, keys)
	for room := range keys {
		homes[room] = home(room)
	}
	for room := range keys {
		if again := home(room); again != homes[room] {
			t.Errorf("room %d is on %s and %s", room, homes[room], again)
		}
	}
	f.know("abcd")
	moved := 0
	for room := range keys {
		switch now := home(room); now {
		case homes[room]:
		case "d":
			moved++
		default:
			t.Errorf("room %d is on %s, was on %s", room, now, homes[room])
		}
	}
	t.Logf("%d of %d rooms went to a fourth target", moved, keys)
	if moved == 0 || moved > keys/2 {
		t.Errorf("%d of %d rooms moved", moved, keys)
	}
}

// A client on one address has one target by ip; see pools for the id.
func TestSpreadByIP(t *testing.T) {
	f := newFleet(t, "", ", balance: {hash: ip}", "abc", 3)
	for range 20 {
		f.dial("/", nil)
	}
	if n := f.spread(); difference(n) != 20 {
		t.Errorf("one address is on %v", n)
	}
}

const moving = ", continuity: {backoff: {min: 1ms, max: 10ms}}"

// After a target has joined sessions move until the skew is under its bound,
// at the rate that is asked for, and nobody notices.
func TestRebalance(t *testing.T) {
	const rate = 40
	for _, balance := range []string{"least_sessions", "round_robin", "p2c"} {
		t.Run(balance, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, moving, fmt.Sprintf(", balance: %s, rebalance: {skew: 0.2, rate: %d}", balance, rate), "abc", 2)
			f.join(60, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
			f.during("connected", 0, func() {})
			f.settled("before", func(n map[string]int) bool { return n["a"]+n["b"] == 60 })
			from := time.Now()
			f.know("abc")
			bound := func(n map[string]int) bool {
				counts := slices.Collect(maps.Values(n))
				return n["a"]+n["b"]+n["c"] == 60 && float64(slices.Max(counts)) <= 1.2*float64(slices.Min(counts))
			}
			f.settled("after", bound)
			took := time.Since(from)
			moved := f.spread()["c"]
			if least := time.Duration(moved-1) * time.Second / rate; took < least*9/10 {
				t.Errorf("%d sessions moved within %v, want %v at least", moved, took, least)
			}
			// And that is that: it does not go on and on.
			f.during("moved", 0, func() {})
			upstreams := f.upstreams()
			f.during("at rest", 0, func() { time.Sleep(300 * time.Millisecond) })
			if again := f.upstreams(); again != upstreams {
				t.Errorf("%d more sessions moved when all was even", again-upstreams)
			}
			f.lossless()
		})
	}
}

// upstreams is how many upstream connections there have been.
func (f *fleet) upstreams() int {
	n := 0
	for _, c := range f.clients {
		n += f.ledger.Attempts(c.ID)
	}
	return n
}

// lossless checks the swarm, which has lost nothing.
func (f *fleet) lossless() {
	f.t.Helper()
	f.check()
	if lost := f.lost(); lost > 0 {
		f.t.Errorf("%d messages were lost", lost)
	}
}

// A target that a reload takes away is drained: who can be moved is moved,
// and the others stay to their end.
func TestReloadRemovesTarget(t *testing.T) {
	t.Run("with continuity", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, moving, "", "ab", 2)
		f.join(40, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
		f.during("connected", 0, func() {})
		f.know("b")
		f.settled("without a", func(n map[string]int) bool { return n["a"] == 0 && n["b"] == 40 })
		f.during("moved", 0, func() {})
		f.lossless()
		waitUntil(t, "a is forgotten", func() bool { return len(sessionsOn(f.proxy, "app")) == 1 })
	})
	t.Run("without continuity", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, "", "", "ab", 2)
		f.join(40, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
		f.during("connected", 0, func() {})
		f.know("b")
		f.during("without a", 0, func() { time.Sleep(200 * time.Millisecond) })
		if n := f.spread(); n["a"] != 20 {
			t.Errorf("sessions have left a: %v", n)
		}
		for range 5 {
			f.dial("/", nil)
		}
		if n := f.spread(); n["a"] != 20 || n["b"] != 25 {
			t.Errorf("new sessions are spread as %v", n)
		}
		f.lossless()
	})
}

func TestDrainAndUndrain(t *testing.T) {
	f := newFleet(t, moving, "", "ab", 2)
	f.join(40, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	from := time.Now()
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.settled("drained", func(n map[string]int) bool { return n["a"] == 0 && n["b"] == 40 })
	if took, least := time.Since(from), 18*time.Second/200; took < least {
		t.Errorf("20 sessions moved within %v, want %v at least", took, least)
	}
	f.dial("/", nil)
	if n := f.spread(); n["a"] != 0 {
		t.Errorf("a new session went to a drained target: %v", n)
	}
	if err := f.proxy.Pools().Undrain("app", "a"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f.dial("/", nil)
	}
	if n := f.spread(); n["a"] != 10 {
		t.Errorf("an undrained target with the fewest sessions got %d of 10", n["a"])
	}
	f.lossless()
}

// Where there is nowhere else to go a drain moves nobody until there is.
func TestDrainOfTheOnlyTarget(t *testing.T) {
	f := newFleet(t, moving, "", "ab", 1)
	f.join(10, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.during("drained", 0, func() { time.Sleep(200 * time.Millisecond) })
	if n := f.spread(); n["a"] != 10 {
		t.Errorf("sessions have left their only target: %v", n)
	}
	f.know("ab")
	f.settled("another has come", func(n map[string]int) bool { return n["a"] == 0 && n["b"] == 10 })
	f.during("moved", 0, func() {})
	f.lossless()
}

// max_sessions holds for each target, also when many come at once, and a
// session that ends makes room.
func TestMaxSessions(t *testing.T) {
	f := newFleet(t, "", ", max_sessions: 5", "ab", 2)
	var mu sync.Mutex
	answers := make(map[int]int)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c, resp, err := websocket.Dial(ctx, "ws://"+f.proxy.Addrs()[0].String(), nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				f.plain = append(f.plain, c)
			}
			if resp != nil {
				answers[resp.StatusCode]++
			}
		})
	}
	all.Wait()
	if answers[101] != 10 || answers[503] != 10 {
		t.Errorf("answers by status: %v", answers)
	}
	// A backend counts a session when it has answered it, which may be later.
	f.settled("sessions", func(n map[string]int) bool { return n["a"] == 5 && n["b"] == 5 })
	f.plain[0].CloseNow()
	waitUntil(t, "there is room", func() bool {
		n := sessionsOn(f.proxy, "app")
		return n["a"]+n["b"] == 9
	})
	if status := f.dial("/", nil); status != http.StatusSwitchingProtocols {
		t.Errorf("a place is free and the answer %d", status)
	}
	if status := f.dial("/", nil); status != http.StatusServiceUnavailable {
		t.Errorf("no place is free and the answer %d", status)
	}
}

// Sessions that lose their upstream while the others are full wait.
func TestMaxSessionsAtRedial(t *testing.T) {
	f := newFleet(t, moving, ", max_sessions: 5", "ab", 2)
	f.join(10, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.servers["a"].Close(websocket.StatusServiceRestart, "")
	waitUntil(t, "five are held", func() bool {
		held := 0
		for _, s := range f.proxy.Sessions() {
			if s.State() == HeldState {
				held++
			}
		}
		return held == 5
	})
	if n := f.spread(); n["b"] != 5 {
		t.Errorf("b has %d sessions", n["b"])
	}
	f.during("undrained", 0, func() {
		if err := f.proxy.Pools().Undrain("app", "a"); err != nil {
			t.Fatal(err)
		}
	})
	f.check()
}
