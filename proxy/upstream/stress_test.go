package upstream

import (
	"errors"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stentproxy/stent/config"
)

// TestEverythingAtOnce dials while targets come, go, drain and are looked
// at: nothing races, and in the end no place is taken.
func TestEverythingAtOnce(t *testing.T) {
	one, two := listen(t, welcome), listen(t, welcome)
	both := upstreamOf(one.url(), two.url(), nobody(t))
	both.Outlier = &config.Outlier{Failures: 2, Eject: milliseconds(1), MaxEjected: 0.5}
	both.Health = &config.Health{Path: "/", Interval: milliseconds(1), Timeout: milliseconds(500), Healthy: 1, Unhealthy: 1, WebSocket: true}
	single := upstreamOf(two.url())
	single.Balance.Kind = config.BalanceRoundRobin

	pools := NewPools(Options{})
	p := update(t, pools, both)
	stop := serve(t, pools)
	var dialers, others sync.WaitGroup
	for range 8 {
		dialers.Go(func() {
			for range 50 {
				c, err := p.Dial(t.Context(), &Handshake{})
				if err == nil {
					_ = c.Target.Name()
					c.Close()
				} else if !errors.Is(err, ErrNoTarget) && !errors.Is(err, ErrUnreachable) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	for _, f := range []func(i int){
		func(i int) {
			next := map[string]config.Upstream{"app": both}
			switch {
			case i%5 == 0:
				next = nil
			case i%2 == 0:
				next["app"] = single
			}
			if err := pools.Update(next); err != nil {
				t.Error(err)
			}
		},
		func(i int) {
			name := two.Addr().String()
			if i%2 == 0 {
				_ = pools.Drain("app", name)
			} else {
				_ = pools.Undrain("app", name)
			}
		},
		func(int) {
			pools.Snapshot()
			pools.Leaving()
			p.NextMove()
			ch := make(chan prometheus.Metric, 100)
			pools.Collect(ch)
		},
	} {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					f(i)
				}
			}
		})
	}
	dialers.Wait()
	close(done)
	others.Wait()
	stop()
	for _, target := range listed(p) {
		if target.busy() {
			t.Errorf("%s: %d sessions, %d dials under way", target.Name(), target.sessions, target.dialling)
		}
	}
	if got := pools.Leaving(); len(got) != 0 {
		t.Errorf("leaving %v", got)
	}
}
