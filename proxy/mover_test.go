package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/proxy/testbackend"
)

// seen waits for a line in the log.
func seen(t *testing.T, logs *observer.ObservedLogs, message string) {
	t.Helper()
	waitUntil(t, message, func() bool { return logs.FilterMessage(message).Len() > 0 })
}

// Nobody leaves a target that serves for one that is not there, whatever is
// asked for: the sessions go when it has come.
func TestNoMoveToNowhere(t *testing.T) {
	for _, tt := range []struct {
		name, pool, before, after string
		stay                      string // the log says so
	}{
		{"a reload that has another target", "", "a", "b", "no target takes the sessions of a leaving one: they stay"},
		{"rebalance", ", rebalance: {skew: 0.2, rate: 50}", "a", "ab", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, ", continuity: {hold: 5s, backoff: {min: 10ms, max: 50ms}}", tt.pool, "ab", 1)
			there := f.targets["b"]
			_, dead := address(t, "tcp")
			f.targets["b"] = fmt.Sprintf("{name: b, url: %q}", dead)
			f.join(10, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
			f.during("connected", 0, func() {})
			f.know(tt.after)
			if tt.stay != "" {
				seen(t, f.logs, tt.stay)
			}
			f.during("nowhere to go", 0, func() { time.Sleep(2 * movePass) })
			if n, m := f.spread(), f.upstreams(); n["a"] != 10 || m != 10 {
				t.Errorf("%v, over %d upstreams", n, m)
			}
			f.targets["b"] = there
			f.know(tt.after)
			f.settled("another is there", func(n map[string]int) bool { return n["b"] >= 5 && n["a"]+n["b"] == 10 })
			f.during("moved", 0, func() {})
			f.lossless()
		})
	}
}

// A target that accepts connections and refuses sessions gets one of them,
// and the others stay where they are served.
func TestOneGoesAhead(t *testing.T) {
	f := newFleet(t, ", continuity: {hold: 1m, backoff: {min: 10ms, max: 50ms}}", "", "ab", 1)
	var ready atomic.Bool
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		f.servers["b"].ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.servers["b"].Close(websocket.StatusGoingAway, "")
		b.Close()
	})
	f.targets["b"] = fmt.Sprintf("{name: b, url: %q}", "ws://"+b.Listener.Addr().String())
	f.join(10, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	f.know("b")
	f.settled("one has left", func(n map[string]int) bool { return n["a"] == 9 })
	time.Sleep(2 * movePass)
	if n := f.spread(); n["a"] != 9 {
		t.Errorf("the others did not stay: %v", n)
	}
	ready.Store(true)
	f.settled("all have left", func(n map[string]int) bool { return n["a"] == 0 && n["b"] == 10 })
	f.during("moved", 0, func() {})
	f.lossless()
}

// Rebalancing goes on at its rate, be it below one a second, beside a session
// that can't leave its target.
func TestRebalanceBesideLeaving(t *testing.T) {
	f := newFleet(t, `, host: plain.test}, {path: /*, upstream: app`+moving, ", rebalance: {skew: 0.2, rate: 0.25}", "abc", 2)
	url := "ws://" + f.proxy.Addrs()[0].String()
	for range 2 {
		c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Host: "plain.test"})
		if err != nil {
			t.Fatal(err)
		}
		f.plain = append(f.plain, c)
	}
	f.join(10, url, testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	f.know("b")
	f.settled("one stays", func(n map[string]int) bool { return n["a"] == 1 && n["b"] == 11 })
	from := time.Now()
	f.know("bc")
	f.settled("one has moved", func(n map[string]int) bool { return n["c"] == 1 })
	f.settled("another has moved", func(n map[string]int) bool { return n["c"] == 2 })
	if took, least := time.Since(from), 4*time.Second*9/10; took < least {
		t.Errorf("two moves within %v, want %v", took, least)
	}
	f.lossless()
}

// Sessions that have lost the draining target by themselves are not moved off
// the one that they have found.
func TestDrainThenStop(t *testing.T) {
	f := newFleet(t, moving, "", "ab", 1)
	const n = 60
	f.join(n, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	f.know("ab")
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.settled("the drain has begun", func(n map[string]int) bool { return n["b"] > 0 })
	f.servers["a"].Close(websocket.StatusGoingAway, "")
	f.settled("drained", func(on map[string]int) bool { return on["a"] == 0 && on["b"] == n })
	time.Sleep(movePass)
	for _, c := range f.clients {
		if n := f.ledger.Attempts(c.ID); n > 2 {
			t.Errorf("client %d had %d upstreams", c.ID, n)
		}
	}
	f.check()
}

// A target that takes connections and says nothing is in nobody's way.
func TestDrainBesideSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	f := newFleet(t, moving, ", tls: {insecure_skip_verify: true}", "abc", 1)
	f.targets["b"] = fmt.Sprintf("{name: b, weight: 1000, url: %q}", "wss://"+silent.Addr().String())
	f.join(5, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	f.know("abc")
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.settled("one has left", func(n map[string]int) bool { return n["a"] < 5 })
}

// Those for whom there is no place stay where they are.
func TestDrainBeyondMaxSessions(t *testing.T) {
	f := newFleet(t, ", continuity: {hold: 5s, backoff: {min: 10ms, max: 50ms}}", ", max_sessions: 30", "ab", 1)
	f.join(30, "ws://"+f.proxy.Addrs()[0].String(), testbackend.ClientConfig{Every: 50 * time.Millisecond})
	f.during("connected", 0, func() {})
	f.pool = ", max_sessions: 20"
	f.know("ab")
	if err := f.proxy.Pools().Drain("app", "a"); err != nil {
		t.Fatal(err)
	}
	f.settled("b is full", func(n map[string]int) bool { return n["b"] == 20 })
	f.during("b is full", 0, func() { time.Sleep(2 * movePass) })
	if n := f.spread(); n["a"] != 10 || n["b"] != 20 {
		t.Errorf("%v", n)
	}
	f.lossless()
}

// A drain that closes what it can't move closes a session, too, whose dial is
// under way.
func TestEvictWhileDialling(t *testing.T) {
	for _, route := range []string{"", "protocol: graphql-transport-ws\ncontinuity: {}"} {
		s := newStage(t, route, "", nil)
		c := s.dial()
		c.say(handshake("/"))
		up := s.accept()
		if err := s.proxy.Pools().Drain("app", s.targets.Addr().String()); err != nil {
			t.Fatal(err)
		}
		for _, target := range s.proxy.Pools().Leaving() {
			s.proxy.CloseOn(target)
		}
		up.say(up.switching())
		if resp := c.status(); resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp.Status)
		}
		c.expect("close 1012 backend is draining", "fin")
		up.expect("close 1001", "fin")
	}
}

// A client whose session ends while its upstream is dialled is told why.
func TestEndWhileDialling(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(s *stage)
		status int
	}{
		{"drain", func(s *stage) { s.stop() }, http.StatusServiceUnavailable},
		{"kick", func(s *stage) { s.session().Close(4000, "out") }, http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, "", "shutdown: {drain: 1s}", nil)
			c := s.dial()
			c.say(handshake("/"))
			s.accept() // and says nothing
			tt.end(s)
			if resp := c.status(); resp.StatusCode != tt.status {
				t.Errorf("got %s, want %d", resp.Status, tt.status)
			}
		})
	}
}

// The first upstream of a client that is answered early is no redial.
func TestAcceptEarlyOutsideRedialRate(t *testing.T) {
	f := newFleet(t, ", continuity: {accept_early: true, hold: 1m}", ", redial_rate: 0.01", "a", 1)
	for range 5 {
		f.dial("/", nil)
	}
	if n := f.spread(); n["a"] != 5 {
		t.Errorf("%v", n)
	}
}
