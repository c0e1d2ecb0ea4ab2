package upstream

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRedialRate lets many redial at once: no quarter of a second has more
// than its share and the burst.
func TestRedialRate(t *testing.T) {
	for _, tt := range []struct {
		rate    float64
		waiters int
		least   time.Duration // for all of them
	}{
		{200, 2000, 9750 * time.Millisecond},
		{3, 10, 3 * time.Second},
		{0.5, 4, 6 * time.Second},
		{0, 5000, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := upstreamOf("ws://127.0.0.1:1")
			u.RedialRate = tt.rate
			p := newPoolOf(t, u)
			time.Sleep(10 * time.Second) // the bucket is full
			start := time.Now()
			var mu sync.Mutex
			var at []time.Duration
			var waiters sync.WaitGroup
			for range tt.waiters {
				waiters.Go(func() {
					if err := p.WaitRedial(t.Context()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					at = append(at, time.Since(start))
					mu.Unlock()
				})
			}
			waiters.Wait()
			if took := time.Since(start); took < tt.least || took > tt.least+100*time.Millisecond {
				t.Errorf("rate %v: %d took %v, want %v", tt.rate, tt.waiters, took, tt.least)
			}
			if tt.rate == 0 {
				return
			}
			burst := max(1, int(tt.rate/4))
			for i := range at {
				bound := at[i] + time.Second
				in := 0
				for j := i; j < len(at) && at[j] < bound; j++ {
					in++
				}
				if in > int(tt.rate)+burst+1 {
					t.Fatalf("rate %v: %d within a second", tt.rate, in)
				}
			}
		})
	}
}

// TestRedialGivenUp lets most of those who wait give up: those who come
// later don't wait for them.
func TestRedialGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := upstreamOf("ws://127.0.0.1:1")
		u.RedialRate = 10
		p := newPoolOf(t, u)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var waiters sync.WaitGroup
		for range 500 {
			waiters.Go(func() {
				if err := p.WaitRedial(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		waiters.Wait()
		start := time.Now()
		if err := p.WaitRedial(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("waited %v for those who have gone", took)
		}
		if err := p.WaitRedial(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// TestRedialRateReloads raises the rate and takes it away while many wait.
func TestRedialRateReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pools := NewPools(Options{})
		u := upstreamOf("ws://127.0.0.1:1")
		u.RedialRate = 1
		p := update(t, pools, u)
		if got := p.MoveRate(); got != 1 {
			t.Errorf("move rate %v", got)
		}
		start := time.Now()
		var waiters sync.WaitGroup
		for range 100 {
			waiters.Go(func() { _ = p.WaitRedial(t.Context()) })
		}
		time.Sleep(1500 * time.Millisecond)
		u.RedialRate = 0
		update(t, pools, u)
		waiters.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		if got := p.MoveRate(); got != 200 {
			t.Errorf("move rate %v", got)
		}
	})
}
