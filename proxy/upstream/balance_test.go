package upstream

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/stentproxy/stent/config"
)

// targetsOf makes targets with these weights, named a, b, c and so on.
func targetsOf(weights ...int) []*Target {
	var all []*Target
	for i, w := range weights {
		name := string(rune('a' + i))
		all = append(all, &Target{name: name, hash: xxhash.Sum64String(name), weight: w})
	}
	return all
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// within checks that each target got its share of n picks, to a tolerance
// of five standard deviations of independent draws.
func within(t *testing.T, picks map[string]int, targets []*Target, n int) {
	t.Helper()
	sum := 0
	for _, target := range targets {
		sum += target.weight
	}
	for _, target := range targets {
		share := float64(target.weight) / float64(sum)
		want := share * float64(n)
		slack := 5 * math.Sqrt(want*(1-share))
		if got := float64(picks[target.name]); math.Abs(got-want) > slack {
			t.Errorf("%s got %.0f of %d, want %.0f ± %.0f", target.name, got, n, want, slack)
		}
	}
}

func keyed(i int) affinity { return &Handshake{ID: fmt.Sprintf("user:%d", i)} }

func TestSpreadByWeight(t *testing.T) {
	const n = 100_000
	for _, kind := range []config.BalanceKind{
		config.BalanceLeastSessions, config.BalanceRoundRobin, config.BalanceRandom, config.BalanceHash,
	} {
		for _, weights := range [][]int{{1, 1, 1}, {1, 2, 5}, {3, 1}, {1}} {
			t.Run(fmt.Sprint(kind, weights), func(t *testing.T) {
				targets, rng := targetsOf(weights...), seeded()
				picks := make(map[string]int)
				for i := range n {
					target := choose(balance{kind: kind}, targets, keyed(i), rng)
					target.sessions++ // sessions stay
					picks[target.name]++
				}
				within(t, picks, targets, n)
			})
		}
	}
}

// TestSpreadOfLongSessions checks the algorithms that look at load while
// sessions come and go: the counts stay closer than by chance.
func TestSpreadOfLongSessions(t *testing.T) {
	for _, tt := range []struct {
		kind  config.BalanceKind
		slack float64 // of the mean, per unit of weight
	}{
		{config.BalanceLeastSessions, 0.05},
		{config.BalanceP2C, 0.10},
	} {
		for _, weights := range [][]int{{1, 1, 1, 1, 1}, {1, 2, 3, 4}} {
			t.Run(fmt.Sprint(tt.kind, weights), func(t *testing.T) {
				targets, rng := targetsOf(weights...), seeded()
				var open []*Target
				for i := range 50_000 {
					if i >= 1000 {
						last := rng.IntN(len(open))
						open[last].sessions--
						open[last] = open[len(open)-1]
						open = open[:len(open)-1]
					}
					target := choose(balance{kind: tt.kind}, targets, keyed(i), rng)
					target.sessions++
					open = append(open, target)
				}
				sum := 0
				for _, w := range weights {
					sum += w
				}
				mean := float64(len(open)) / float64(sum)
				for _, target := range targets {
					got := float64(target.sessions) / float64(target.weight)
					if math.Abs(got-mean) > tt.slack*mean {
						t.Errorf("%s has %.1f for its weight, want %.1f ± %.0f%%", target.name, got, mean, 100*tt.slack)
					}
				}
			})
		}
	}
}

// TestRoundRobinIsSmooth checks the order of one round: heavy targets don't
// get their turns in a row.
func TestRoundRobinIsSmooth(t *testing.T) {
	targets, got := targetsOf(5, 1, 1), ""
	for range 14 {
		got += smoothRoundRobin(targets).name
	}
	if want := "aabacaaaabacaa"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLeastSessionsFillsTheEmptiest(t *testing.T) {
	targets := targetsOf(1, 1, 2)
	targets[0].sessions, targets[1].sessions, targets[2].sessions = 10, 9, 19
	if got := lightest(targets, seeded()); got.name != "b" && got.name != "c" {
		t.Errorf("got %s", got.name)
	}
	targets[2].dialling = 1 // dials under way count
	if got := lightest(targets, seeded()); got.name != "b" {
		t.Errorf("got %s, want b", got.name)
	}
}

// TestHashMovesTheMinimum takes a target away, adds one, and changes a
// weight: no key moves between targets that were not concerned.
func TestHashMovesTheMinimum(t *testing.T) {
	const keys = 20_000
	homes := func(targets []*Target) []string {
		all := make([]string, keys)
		for i := range all {
			all[i] = rendezvous(targets, fmt.Sprintf("room:%d", i)).name
		}
		return all
	}
	five := targetsOf(1, 1, 1, 1, 1)
	tests := []struct {
		name          string
		before, after []*Target
		from, to      string  // all moves leave from, or go to
		share         float64 // of the keys that move
	}{
		{"one goes", five, append(targetsOf(1, 1), five[3:]...), "c", "", 1.0 / 5},
		{"one comes", five, targetsOf(1, 1, 1, 1, 1, 1), "", "f", 1.0 / 6},
		{"one becomes heavier", five, targetsOf(1, 3, 1, 1, 1), "", "b", 3.0/7 - 1.0/5},
		{"one becomes lighter", targetsOf(2, 2, 2), targetsOf(2, 1, 2), "b", "", 1.0/3 - 1.0/5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			was, is, moved := homes(tt.before), homes(tt.after), 0
			for i := range was {
				if was[i] == is[i] {
					continue
				}
				moved++
				if tt.from != "" && was[i] != tt.from || tt.to != "" && is[i] != tt.to {
					t.Fatalf("key %d moved from %s to %s", i, was[i], is[i])
				}
			}
			if got := float64(moved) / keys; math.Abs(got-tt.share) > 0.02 {
				t.Errorf("%.3f of the keys moved, want %.3f", got, tt.share)
			}
		})
	}
}

// TestHashHomes pins a few homes: every stent of every version must agree.
func TestHashHomes(t *testing.T) {
	targets, got := targetsOf(1, 1, 2), ""
	for i := range 16 {
		got += rendezvous(targets, fmt.Sprintf("user:%d", i)).name
	}
	if want := "ccacacccbaacaacc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHashWithoutKeySpreads(t *testing.T) {
	targets, rng := targetsOf(1, 1, 1), seeded()
	picks := make(map[string]int)
	for range 300 {
		target := choose(balance{kind: config.BalanceHash}, targets, &Handshake{}, rng)
		target.sessions++
		picks[target.name]++
	}
	for name, n := range picks {
		if n != 100 {
			t.Errorf("%s got %d of 300", name, n)
		}
	}
}

func TestHashKeys(t *testing.T) {
	uri := "/chat/a%20b?room=x%26y;z&room=2&empty="
	lines := "X-Tenant: acme\r\nCookie: a=1; sid=s3\r\nCookie: b=2\r\nx-tenant: other\r\n"
	h := &Handshake{RequestURI: uri, Host: "h.example", Header: []byte(lines), ID: "user:1", IP: "10.1.2.3"}
	r := &HTTPRequest{RequestURI: uri, Host: "h.example", ID: "user:1", IP: "10.1.2.3", Header: map[string][]string{
		"X-Tenant": {"acme", "other"}, "Cookie": {"a=1; sid=s3", "b=2"},
	}}
	for _, tt := range []struct{ key, want string }{
		{"id", "user:1"},
		{"ip", "10.1.2.3"},
		{"path", "/chat/a%20b"},
		{"query:room", "x&y;z"},
		{"query:empty", ""},
		{"query:none", ""},
		{"header:X-Tenant", "acme"},
		{"header:x-tenant", "acme"},
		{"header:Host", "h.example"},
		{"header:None", ""},
		{"cookie:sid", "s3"},
		{"cookie:b", "2"},
		{"cookie:none", ""},
	} {
		k, err := parseHashKey(tt.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.affinity(k); got != tt.want {
			t.Errorf("%s of a handshake is %q, want %q", tt.key, got, tt.want)
		}
		if got := r.affinity(k); got != tt.want {
			t.Errorf("%s of a request is %q, want %q", tt.key, got, tt.want)
		}
	}
	for _, bad := range []string{"", "ID", "query", "query:", "ip:x", "sessions"} {
		if _, err := parseHashKey(bad); err == nil {
			t.Errorf("%q is taken for a hash key", bad)
		}
	}
}

func TestPrioritiesBeforeWeights(t *testing.T) {
	p := newPoolOf(t, upstreamOf("ws://127.0.0.1:1", "ws://127.0.0.1:2", "ws://127.0.0.1:3"))
	for i, priority := range []int{20, 10, 30} {
		p.targets[i].priority = priority
	}
	pick := func() map[string]int {
		picks := make(map[string]int)
		for range 100 {
			l, _, err := p.tryReserve(&Handshake{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			picks[l.target.name]++
		}
		return picks
	}
	if got := pick(); got["127.0.0.1:2"] != 100 {
		t.Errorf("got %v, want the lowest priority alone", got)
	}
	p.targets[1].down = true
	if got := pick(); got["127.0.0.1:1"] != 100 {
		t.Errorf("got %v, want the next when the lowest is down", got)
	}
	p.targets[0].drained = true
	if got := pick(); got["127.0.0.1:3"] != 100 {
		t.Errorf("got %v, want the last when the others are away", got)
	}
}

// Turns are counted in weights: a reload that changes those begins anew.
func TestRoundRobinAfterReload(t *testing.T) {
	a, b := listen(t, welcome), listen(t, welcome)
	u := upstreamOf(a.url(), b.url())
	u.Balance.Kind = config.BalanceRoundRobin
	u.Targets[0].Weight, u.Targets[1].Weight = 1000, 1000
	pools := NewPools(Options{})
	p := update(t, pools, u)
	open(t, p).Close()
	u.Targets[0].Weight, u.Targets[1].Weight = 1, 1
	update(t, pools, u)
	picked := make(map[string]int)
	for range 10 {
		c := open(t, p)
		picked[c.Target.Name()]++
		c.Close()
	}
	for _, target := range p.targets {
		if n := picked[target.Name()]; n != 5 {
			t.Errorf("%s: %d of 10", target.Name(), n)
		}
	}
}
