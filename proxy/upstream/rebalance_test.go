package upstream

import "testing"

func TestImbalance(t *testing.T) {
	tests := []struct {
		name     string
		loads    []Load
		skew     float64
		from, to int
		ok       bool
	}{
		{"none", nil, 0.1, 0, 0, false},
		{"one", []Load{{9, 1}}, 0.1, 0, 0, false},
		{"off", []Load{{9, 1}, {0, 1}}, 0, 0, 0, false},
		{"even", []Load{{5, 1}, {5, 1}}, 0.1, 0, 0, false},
		{"within", []Load{{110, 1}, {100, 1}}, 0.1, 0, 0, false},
		{"above", []Load{{112, 1}, {100, 1}}, 0.1, 0, 1, true},
		{"a new one", []Load{{40, 1}, {60, 1}, {0, 1}}, 0.2, 1, 2, true},
		{"even by weight", []Load{{10, 1}, {30, 3}}, 0.1, 0, 0, false},
		{"uneven by weight", []Load{{20, 1}, {20, 3}}, 0.1, 0, 1, true},
		{"one session stays where it is", []Load{{1, 1}, {0, 1}}, 0.1, 0, 0, false},
		{"one session goes to the heavier", []Load{{1, 1}, {0, 3}}, 0.1, 0, 0, false},
		{"two sessions part", []Load{{2, 1}, {0, 1}}, 0.1, 0, 1, true},
		{"empty", []Load{{0, 1}, {0, 1}}, 0.1, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, to, ok := Imbalance(tt.loads, tt.skew)
			if ok != tt.ok || ok && (from != tt.from || to != tt.to) {
				t.Errorf("got %d to %d, %v; want %d to %d, %v", from, to, ok, tt.from, tt.to, tt.ok)
			}
		})
	}
}

// TestImbalanceEnds moves until nothing is to move: that comes, within the
// bound, and no session moves twice.
func TestImbalanceEnds(t *testing.T) {
	rng := seeded()
	for range 500 {
		loads := make([]Load, 2+rng.IntN(8))
		total := 0
		for i := range loads {
			loads[i] = Load{rng.IntN(300), 1 + rng.IntN(4)}
			total += loads[i].Sessions
		}
		start, skew, moves := append([]Load(nil), loads...), 0.05+rng.Float64(), 0
		lost := make(map[int]bool)
		for {
			from, to, ok := Imbalance(loads, skew)
			if !ok {
				break
			}
			if lost[to] {
				t.Fatalf("%v with skew %.2f: %d loses and gains", start, skew, to)
			}
			lost[from] = true
			loads[from].Sessions--
			loads[to].Sessions++
			if moves++; moves > total {
				t.Fatalf("%v with skew %.2f never ends", start, skew)
			}
		}
		for _, a := range loads {
			for _, b := range loads {
				most := float64(a.Sessions) / float64(a.Weight)
				least := float64(b.Sessions) / float64(b.Weight)
				// A bound that whole sessions can't reach may stay open by one.
				if most > (1+skew)*least && most-least > 1/float64(a.Weight)+1/float64(b.Weight) {
					t.Fatalf("%v with skew %.2f ends as %v", start, skew, loads)
				}
			}
		}
	}
}

func TestNextMove(t *testing.T) {
	u := upstreamOf("ws://127.0.0.1:1", "ws://127.0.0.1:2", "ws://127.0.0.1:3")
	u.Rebalance.Skew = 0.2
	u.MaxSessions = 50
	p := newPoolOf(t, u)
	a, b, c := p.targets[0], p.targets[1], p.targets[2]
	a.sessions, b.sessions = 40, 30
	if from, to, ok := p.NextMove(); !ok || from != a || to != c {
		t.Errorf("got %v to %v, %v", from, to, ok)
	}
	c.drained = true
	if from, to, ok := p.NextMove(); !ok || from != a || to != b {
		t.Errorf("with c draining: got %v to %v, %v", from, to, ok)
	}
	b.dialling = 10 // on the way there
	if _, _, ok := p.NextMove(); ok {
		t.Error("a move although as many are under way")
	}
	if skew, rate := p.Rebalance(); skew != 0.2 || rate != 10 {
		t.Errorf("got %v, %v", skew, rate)
	}
	c.drained, u.Balance.Kind, u.Balance.Key = false, "hash", "ip"
	update(t, p.pools, u)
	if _, _, ok := p.NextMove(); ok {
		t.Error("a hashing pool moves")
	}
}
