package supervisor

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/thejerf/suture/v4"
)

// Under synctest, time passes only when everybody waits: a restart at the
// very instant of the failure was delayed by nothing and nobody.
func TestFailingNeighboursDelayNobody(t *testing.T) {
	const neighbours, failures, restarts = 300, 50, 20
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{Partitions: 1})
		stop := start(tree)
		for range neighbours {
			left := failures
			if err := tree.AddSession(&worker{"neighbour", func(ctx context.Context) error {
				time.Sleep(time.Millisecond) // its own backoff
				if left == 0 {
					return park(ctx)
				}
				if left--; left%10 == 0 {
					panic("neighbour")
				}
				return errLost
			}}); err != nil {
				t.Fatal(err)
			}
		}

		var failedAt time.Time
		restarted := 0
		finished := make(chan struct{})
		if err := tree.AddSession(&worker{"healthy", func(ctx context.Context) error {
			if !failedAt.IsZero() {
				if waited := time.Since(failedAt); waited != 0 {
					t.Errorf("restart %d waited %s, want 0", restarted, waited)
				}
				if restarted++; restarted == restarts {
					close(finished)
					return park(ctx)
				}
			}
			time.Sleep(time.Millisecond)
			failedAt = time.Now()
			return errLost
		}}); err != nil {
			t.Fatal(err)
		}
		<-finished
		time.Sleep(2 * failures * time.Millisecond)

		if got, want := tree.events.count(failed)+tree.events.count(panicked), neighbours*failures+restarts; got != want {
			t.Errorf("%d failures counted, want %d", got, want)
		}
		if got := tree.events.count(backoff); got != 0 {
			t.Errorf("%d pauses, want 0", got)
		}
		mustStop(t, stop)
	})
}

func TestPanicRestartsTheWorkerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{Partitions: 1})
		stop := start(tree)
		var bad, good atomic.Int32
		add := func(w *worker) {
			if err := tree.AddSession(w); err != nil {
				t.Fatal(err)
			}
		}
		add(&worker{"good", func(ctx context.Context) error {
			good.Add(1)
			return park(ctx)
		}})
		add(&worker{"bad", func(ctx context.Context) error {
			if bad.Add(1) <= 3 {
				panic("bad")
			}
			return park(ctx)
		}})
		synctest.Wait()
		if bad.Load() != 4 || good.Load() != 1 {
			t.Errorf("served bad %d times and good %d times, want 4 and 1", bad.Load(), good.Load())
		}
		if got := tree.partitions[0].workers.Load(); got != 2 {
			t.Errorf("%d workers, want 2", got)
		}
		mustStop(t, stop)
	})
}

func TestSessionsAddedBeforeServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{Partitions: 2})
		var served atomic.Int32
		for range 10 {
			if err := tree.AddSession(&worker{"early", func(context.Context) error {
				served.Add(1)
				return suture.ErrDoNotRestart
			}}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := served.Load(); got != 0 {
			t.Errorf("%d sessions served before the tree was, want 0", got)
		}
		stop := start(tree)
		synctest.Wait()
		if got := served.Load(); got != 10 {
			t.Errorf("%d sessions served, want 10", got)
		}
		mustStop(t, stop)
	})
}

// Whoever was told nil is served; whoever was told ErrStopping never is.
func TestSessionsAddedWhileStopping(t *testing.T) {
	for range 20 {
		tree := New(Options{Partitions: 2})
		stop := start(tree)
		var accepted, served atomic.Int64
		var adders sync.WaitGroup
		enough := make(chan struct{})
		unserved := make(chan struct{}, 1000) // bounds what queues up before Serve
		for range 8 {
			adders.Go(func() {
				for {
					unserved <- struct{}{}
					var once atomic.Bool
					err := tree.AddSession(&worker{"late", func(context.Context) error {
						if once.CompareAndSwap(false, true) {
							<-unserved
							if served.Add(1) == 500 {
								close(enough)
							}
						}
						return suture.ErrDoNotRestart
					}})
					if errors.Is(err, ErrStopping) {
						return
					}
					if err != nil {
						t.Errorf("AddSession = %v, want nil or ErrStopping", err)
						return
					}
					accepted.Add(1)
				}
			})
		}
		<-enough
		mustStop(t, stop)
		adders.Wait()
		if accepted.Load() != served.Load() {
			t.Fatalf("%d sessions accepted, %d served", accepted.Load(), served.Load())
		}
	}
}

func TestSessionsSpread(t *testing.T) {
	for _, tt := range []struct {
		name       string
		partitions int
		sessions   int
		parked     func(n int) bool
	}{
		{"all alike", 4, 400, func(int) bool { return true }},
		{"every other one is short", 2, 400, func(n int) bool { return n%2 == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tree := New(Options{Partitions: tt.partitions})
				stop := start(tree)
				total := 0
				for n := range tt.sessions {
					w := &worker{"short", func(context.Context) error { return suture.ErrDoNotRestart }}
					if tt.parked(n) {
						total++
						w = &worker{"long", park}
					}
					if err := tree.AddSession(w); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				for _, p := range tree.partitions {
					if got, want := p.workers.Load(), int64(total/tt.partitions); got < want-1 || got > want+1 {
						t.Errorf("%s has %d workers, want %d", p.Name, got, want)
					}
				}
				mustStop(t, stop)
			})
		})
	}
}

// finish runs n sessions to their end and returns weak pointers to them.
func finish(t testing.TB, tree *Tree, n int) []weak.Pointer[worker] {
	workers := make([]weak.Pointer[worker], n)
	var served sync.WaitGroup
	served.Add(n)
	for i := range n {
		failed := false
		w := &worker{"brief", func(context.Context) error {
			if i%10 == 0 && !failed {
				failed = true
				return errLost
			}
			served.Done()
			return suture.ErrDoNotRestart
		}}
		workers[i] = weak.Make(w)
		if err := tree.AddSession(w); err != nil {
			t.Fatal(err)
		}
	}
	served.Wait()
	// A partition answers when it has taken note of all that ended before.
	for _, p := range tree.partitions {
		for p.workers.Load() > 0 || len(p.Services()) > 0 {
			runtime.Gosched()
		}
	}
	return workers
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestFinishedSessionsAreForgotten(t *testing.T) {
	const n = 10_000
	tree := New(Options{Partitions: 2})
	stop := start(tree)
	finish(t, tree, n) // grows what suture keeps for its widest moment
	least := int64(math.MaxInt64)
	// That of a later round may be wider: what is held for sessions themselves
	// is held after each of them.
	for range 5 {
		before := heap()
		workers := finish(t, tree, n)
		least = min(least, heap()-before-int64(n*8)) // without the weak pointers themselves
		for i, w := range workers {
			if w.Value() != nil {
				t.Fatalf("worker %d is still held", i)
			}
		}
	}
	if perSession := least / n; perSession > 32 {
		t.Errorf("%d bytes held for each finished session, want none", perSession)
	}
	for _, p := range tree.Snapshot().Children[2].Children {
		if *p.Workers != 0 {
			t.Errorf("%s has %d workers, want 0", p.Name, *p.Workers)
		}
	}
	mustStop(t, stop)
}

// BenchmarkParkedSessions says what the tree holds for a session that waits.
func BenchmarkParkedSessions(b *testing.B) {
	const n = 10_000
	memory := func() (heap, stack float64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc), float64(m.StackInuse)
	}
	var heapBytes, stackBytes, goroutines float64
	for b.Loop() {
		tree := New(Options{})
		stop := start(tree)
		running := runtime.NumGoroutine()
		heap, stack := memory()
		for range n {
			if err := tree.AddSession(&worker{"parked", park}); err != nil {
				b.Fatal(err)
			}
		}
		heapNow, stackNow := memory()
		heapBytes += heapNow - heap
		stackBytes += stackNow - stack
		goroutines += float64(runtime.NumGoroutine() - running)
		mustStop(b, stop)
	}
	sessions := float64(b.N * n)
	b.ReportMetric(heapBytes/sessions, "heap-B/session")
	b.ReportMetric(stackBytes/sessions, "stack-B/session")
	b.ReportMetric(goroutines/sessions, "goroutines/session")
}

// BenchmarkBriefSession adds sessions that end at once.
func BenchmarkBriefSession(b *testing.B) {
	tree := New(Options{})
	stop := start(tree)
	defer mustStop(b, stop)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ended := make(chan struct{})
		w := &worker{"brief", func(context.Context) error {
			ended <- struct{}{}
			return suture.ErrDoNotRestart
		}}
		for pb.Next() {
			if err := tree.AddSession(w); err != nil {
				b.Error(err)
				return
			}
			<-ended
		}
	})
}
