package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errLost = errors.New("upstream lost")

// worker is a service made of a function.
type worker struct {
	name  string
	serve func(ctx context.Context) error
}

func (w *worker) Serve(ctx context.Context) error { return w.serve(ctx) }
func (w *worker) String() string                  { return w.name }

func park(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// start serves tree until the returned stop, which returns what Serve did.
func start(tree *Tree) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- tree.Serve(ctx) }()
	return func() error {
		cancel()
		return <-served
	}
}

func mustStop(t testing.TB, stop func() error) {
	t.Helper()
	if err := stop(); err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

func mustAdd(t testing.TB, add func(suture.Service) (suture.ServiceToken, error), s suture.Service) suture.ServiceToken {
	t.Helper()
	token, err := add(s)
	if err != nil {
		t.Fatalf("add %s: %v", nameOf(s), err)
	}
	return token
}

// farewells are services that note in which order they end.
type farewells struct {
	mu    sync.Mutex
	order []string
}

func (f *farewells) from(name string) *worker {
	return &worker{name, func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second) // time enough for others to overtake
		f.mu.Lock()
		defer f.mu.Unlock()
		f.order = append(f.order, name)
		return ctx.Err()
	}}
}

func TestStopOrder(t *testing.T) {
	want := []string{"listener", "session", "session", "control"}
	for _, tt := range []struct {
		name string
		last error // of a control service, as the tree runs
		want error
	}{
		{"context ended", nil, nil},
		{"tree terminated", suture.ErrTerminateSupervisorTree, suture.ErrTerminateSupervisorTree},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tree := New(Options{Partitions: 2})
				var f farewells
				mustAdd(t, tree.AddControl, f.from("control"))
				mustAdd(t, tree.AddListener, f.from("listener"))
				for range 2 {
					if err := tree.AddSession(f.from("session")); err != nil {
						t.Fatal(err)
					}
				}
				stop := start(tree)
				synctest.Wait()
				if tt.last != nil {
					mustAdd(t, tree.AddControl, &worker{"broken", func(context.Context) error { return tt.last }})
					synctest.Wait()
					time.Sleep(time.Minute) // the stop is under way without our cancel
				}
				if err := stop(); !errors.Is(err, tt.want) {
					t.Errorf("Serve = %v, want %v", err, tt.want)
				}
				if !slices.Equal(f.order, want) {
					t.Errorf("stopped in the order %q, want %q", f.order, want)
				}
			})
		})
	}
}

func TestStopTimeoutNamesTheCulprits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		stuck    int
		wantName int
		others   int
	}{
		{"one", 1, 1, 0},
		{"more than are named", 20, maxOverdue, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tree := New(Options{Partitions: 3, StopTimeout: 7 * time.Second})
				release := make(chan struct{})
				for range tt.stuck {
					if err := tree.AddSession(&worker{"stuck", func(context.Context) error {
						<-release
						return suture.ErrDoNotRestart
					}}); err != nil {
						t.Fatal(err)
					}
				}
				if err := tree.AddSession(&worker{"good", park}); err != nil {
					t.Fatal(err)
				}
				stop := start(tree)
				synctest.Wait()

				began := time.Now()
				err := stop()
				if got, want := time.Since(began), 7*time.Second; got != want {
					t.Errorf("stop took %s, want %s", got, want)
				}
				var timeout *StopTimeoutError
				if !errors.As(err, &timeout) {
					t.Fatalf("Serve = %v, want a StopTimeoutError", err)
				}
				if want := slices.Repeat([]string{"stuck"}, tt.wantName); !slices.Equal(timeout.Services, want) || timeout.Others != tt.others {
					t.Errorf("named %q and %d others, want %q and %d", timeout.Services, timeout.Others, want, tt.others)
				}
				if !strings.Contains(err.Error(), "stuck") {
					t.Errorf("error %q does not name the culprit", err)
				}
				if got := tree.events.count(stopTimeout); got != tt.stuck {
					t.Errorf("%d stop timeouts counted, want %d", got, tt.stuck)
				}
				close(release)
			})
		})
	}
}

func TestServeOnce(t *testing.T) {
	tree := New(Options{})
	mustStop(t, start(tree))
	if err := tree.Serve(t.Context()); err == nil {
		t.Error("second Serve = nil, want an error")
	}
}

func TestAfterStop(t *testing.T) {
	tree := New(Options{})
	mustStop(t, start(tree))
	never := &worker{"never", func(context.Context) error {
		t.Error("served after the stop")
		return suture.ErrDoNotRestart
	}}
	if err := tree.AddSession(never); !errors.Is(err, ErrStopping) {
		t.Errorf("AddSession = %v, want ErrStopping", err)
	}
	if _, err := tree.AddListener(never); !errors.Is(err, ErrStopping) {
		t.Errorf("AddListener = %v, want ErrStopping", err)
	}
	if _, err := tree.AddControl(never); !errors.Is(err, ErrStopping) {
		t.Errorf("AddControl = %v, want ErrStopping", err)
	}
	if got := len(tree.Snapshot().Children); got != 3 {
		t.Errorf("Snapshot has %d children, want 3", got)
	}
}

func TestTerminate(t *testing.T) {
	broken := fmt.Errorf("bind :4000: %w", suture.ErrTerminateSupervisorTree)
	terminate := &worker{"broken", func(context.Context) error { return broken }}

	t.Run("a listener ends the tree", func(t *testing.T) {
		tree := New(Options{})
		stopped := make(chan struct{})
		if err := tree.AddSession(&worker{"session", func(ctx context.Context) error {
			defer close(stopped)
			return park(ctx)
		}}); err != nil {
			t.Fatal(err)
		}
		mustAdd(t, tree.AddListener, terminate)
		err := tree.Serve(t.Context())
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "broken: ") {
			t.Errorf("Serve = %v, want the listener's error with its name", err)
		}
		<-stopped
	})

	t.Run("a session ends itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tree := New(Options{Partitions: 1})
			stop := start(tree)
			var f farewells
			if err := tree.AddSession(f.from("stranger")); err != nil {
				t.Fatal(err)
			}
			if err := tree.AddSession(terminate); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if len(f.order) != 0 {
				t.Error("a stranger was stopped")
			}
			if got := tree.partitions[0].workers.Load(); got != 1 {
				t.Errorf("%d workers, want the stranger alone", got)
			}
			mustStop(t, stop)
		})
	})
}

func TestControlPausesAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{})
		stop := start(tree)
		began := time.Now()
		serves := 0
		recovered := make(chan time.Duration)
		mustAdd(t, tree.AddControl, &worker{"flapping", func(ctx context.Context) error {
			if serves++; serves <= 6 {
				return errors.New("address in use")
			}
			recovered <- time.Since(began)
			return park(ctx)
		}})
		if paused := <-recovered; paused < 15*time.Second {
			t.Errorf("back after %s, want a pause of 15s at least", paused)
		}
		synctest.Wait()
		for kind, want := range map[kind]int{failed: 6, backoff: 1, resumed: 1} {
			if got := tree.events.count(kind); got != want {
				t.Errorf("%s counted %d times, want %d", kindNames[kind], got, want)
			}
		}
		mustStop(t, stop)
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{StopTimeout: 3 * time.Second})
		stop := start(tree)
		synctest.Wait()
		var ended atomic.Int32
		slow := func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Add(1)
			return ctx.Err()
		}
		tokens := []suture.ServiceToken{
			mustAdd(t, tree.AddListener, &worker{"listener", slow}),
			mustAdd(t, tree.AddControl, &worker{"control", slow}),
		}
		for n, token := range tokens {
			if err := tree.Remove(token); err != nil {
				t.Errorf("Remove = %v, want nil", err)
			}
			if got, want := ended.Load(), int32(n+1); got != want {
				t.Errorf("Remove returned with %d services ended, want %d", got, want)
			}
		}
		if err := tree.Remove(suture.ServiceToken{}); !errors.Is(err, suture.ErrWrongSupervisor) {
			t.Errorf("Remove of no token = %v, want ErrWrongSupervisor", err)
		}
		mustStop(t, stop)
		if err := tree.Remove(tokens[0]); !errors.Is(err, ErrStopping) {
			t.Errorf("Remove after the stop = %v, want ErrStopping", err)
		}
	})
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{Partitions: 2})
		stop := start(tree)
		mustAdd(t, tree.AddListener, &worker{"listener :4001", park})
		mustAdd(t, tree.AddListener, &worker{"listener :4000", park})
		flaky := func() func(context.Context) error {
			fails := 2
			return func(ctx context.Context) error {
				if fails--; fails >= 0 {
					return errLost
				}
				return park(ctx)
			}
		}
		mustAdd(t, tree.AddControl, &worker{"admin", flaky()})
		for range 3 {
			if err := tree.AddSession(&worker{"session", flaky()}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()

		got, err := json.Marshal(tree.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		want := `{"name":"stent","kind":"supervisor","restarts":8,"children":[` +
			`{"name":"listeners","kind":"supervisor","restarts":0,"children":[` +
			`{"name":"listener :4000","kind":"service","restarts":0},` +
			`{"name":"listener :4001","kind":"service","restarts":0}]},` +
			`{"name":"control","kind":"supervisor","restarts":2,"children":[` +
			`{"name":"admin","kind":"service","restarts":2},` +
			`{"name":"event log","kind":"service","restarts":0}]},` +
			`{"name":"sessions","kind":"supervisor","restarts":6,"children":[` +
			`{"name":"partition 0","kind":"supervisor","restarts":2,"workers":1},` +
			`{"name":"partition 1","kind":"supervisor","restarts":4,"workers":2}]}]}`
		if string(got) != want {
			t.Errorf("Snapshot is\n%s\nwant\n%s", got, want)
		}
		mustStop(t, stop)
	})
}
