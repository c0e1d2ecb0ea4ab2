package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
)

// Sessions come and go in any order: the registry finds those of an id, each
// once, and keeps nothing of those that are gone.
func TestRegistryByID(t *testing.T) {
	r := newRegistry()
	rt := &route{count: newMetrics().route("/")}
	rnd := rand.New(rand.NewPCG(1, 2))
	living := make(map[string]map[*Session]bool) // by id
	var order []*Session
	check := func() {
		t.Helper()
		for id, want := range living {
			got := r.withID(id)
			if id == "" {
				want = nil
			}
			seen := make(map[*Session]bool)
			for _, s := range got {
				if !want[s] || seen[s] {
					t.Fatalf("id %q: a session that is gone, of another id, or twice", id)
				}
				seen[s] = true
			}
			if len(got) != len(want) {
				t.Fatalf("id %q: %d sessions, want %d", id, len(got), len(want))
			}
		}
	}
	for i := range 500 {
		if len(order) == 0 || i < 300 && rnd.IntN(3) > 0 {
			id := ""
			if n := rnd.IntN(4); n > 0 {
				id = fmt.Sprint("user:", n)
			}
			s := &Session{
				key: fmt.Sprint(i), info: &plug.Info{ID: id}, route: rt,
				link: relay.New(relay.Session{Policy: &relay.Policy{Rules: &closeTable}}),
			}
			r.add(s)
			order = append(order, s)
			if living[id] == nil {
				living[id] = make(map[*Session]bool)
			}
			living[id][s] = true
		} else {
			n := rnd.IntN(len(order))
			s := order[n]
			order = append(order[:n], order[n+1:]...)
			r.remove(s)
			r.remove(s) // once more changes nothing
			delete(living[s.ID()], s)
		}
		check()
	}
	for _, s := range order {
		r.remove(s)
	}
	if len(r.ids) != 0 || r.len() != 0 {
		t.Errorf("%d ids and %d sessions are left", len(r.ids), r.len())
	}
}
