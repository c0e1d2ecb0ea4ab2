package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func (e *events) count(k kind) int { return int(e.total[k].Load()) }

// nameless has no String; suture would print its token.
type nameless struct {
	token string
	serve func(ctx context.Context) error
}

func (n *nameless) Serve(ctx context.Context) error { return n.serve(ctx) }

func TestEventsAreLogged(t *testing.T) {
	once := func(first func() error) func(context.Context) error {
		again := false
		return func(ctx context.Context) error {
			if again {
				return park(ctx)
			}
			again = true
			return first()
		}
	}
	fail := once(func() error { return errLost })
	for _, tt := range []struct {
		name    string
		control bool
		service suture.Service
		level   zapcore.Level
		message string
		fields  map[string]any
	}{
		{"a control service's failure", true, &worker{"admin", fail}, zap.WarnLevel, "service failed",
			map[string]any{"supervisor": "control", "service": "admin", "error": "upstream lost", "restarting": true}},
		{"a session's failure", false, &worker{"session 1", once(func() error { return errLost })}, zap.DebugLevel, "service failed",
			map[string]any{"supervisor": "partition 0", "service": "session 1", "error": "upstream lost", "restarting": true}},
		{"nil is a failure", true, &worker{"admin", once(func() error { return nil })}, zap.WarnLevel, "service failed",
			map[string]any{"supervisor": "control", "service": "admin", "restarting": true}},
		{"a session's panic", false, &worker{"session 2", once(func() error { panic("boom") })}, zap.ErrorLevel, "service panicked",
			map[string]any{"supervisor": "partition 0", "service": "session 2", "panic": "boom", "restarting": true}},
		{"a panic's fields are secret", false, &worker{"session 3", once(func() error { panic(&nameless{token: "hunter2"}) })}, zap.ErrorLevel, "service panicked",
			map[string]any{"panic": "*supervisor.nameless"}},
		{"a nameless service's fields are secret", true, &nameless{"hunter2", once(func() error { return errLost })}, zap.WarnLevel, "service failed",
			map[string]any{"service": "supervisor.nameless"}},
		{"a nameless session's too", false, &nameless{"hunter2", once(func() error { panic(errLost) })}, zap.ErrorLevel, "service panicked",
			map[string]any{"service": "supervisor.nameless", "panic": "upstream lost"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				tree := New(Options{Log: zap.New(core), Partitions: 1})
				stop := start(tree)
				if tt.control {
					mustAdd(t, tree.AddControl, tt.service)
				} else if err := tree.AddSession(tt.service); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()

				if logs.Len() != 1 {
					t.Fatalf("%d lines logged, want 1: %v", logs.Len(), logs.All())
				}
				line := logs.All()[0]
				fields := line.ContextMap()
				if line.Level != tt.level || line.Message != tt.message {
					t.Errorf("logged %s %q, want %s %q", line.Level, line.Message, tt.level, tt.message)
				}
				for key, want := range tt.fields {
					if got := fields[key]; got != want {
						t.Errorf("field %s = %v, want %v", key, got, want)
					}
				}
				if text := fmt.Sprint(fields); strings.Contains(text, "hunter2") {
					t.Errorf("a secret is logged: %s", text)
				}
				mustStop(t, stop)
			})
		})
	}
}

// A control service may be a supervisor; its events are ours then.
func TestEventsOfASupervisorBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(Options{})
		stop := start(tree)
		pools := suture.NewSimple("pools")
		pools.Add(&worker{"health", func(ctx context.Context) error {
			if tree.events.count(failed) == 0 {
				time.Sleep(time.Second)
				return errLost
			}
			return park(ctx)
		}})
		mustAdd(t, tree.AddControl, pools)
		time.Sleep(time.Minute)
		if got := tree.events.count(failed); got == 0 {
			t.Error("the failure below was not counted")
		}
		mustStop(t, stop)
	})
}

func TestPanicStackIsBoundedAndNamesTheCulprit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		tree := New(Options{Log: zap.New(core), Partitions: 1})
		stop := start(tree)
		if err := tree.AddSession(&worker{"deep", func(ctx context.Context) error {
			if logs.Len() == 0 {
				culprit(200)
			}
			return park(ctx)
		}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		fields := logs.All()[0].ContextMap()
		if stack := fields["stack"].(string); len(stack) > maxStack || !strings.Contains(stack, "supervisor.culprit") {
			t.Errorf("stack of %d bytes, want at most %d with the culprit's frame:\n%s", len(stack), maxStack, stack)
		}
		if got := len(fields["panic"].(string)); got != maxPanic {
			t.Errorf("panic text has %d bytes, want %d", got, maxPanic)
		}
		mustStop(t, stop)
	})
}

func culprit(depth int) {
	if depth == 0 {
		panic(strings.Repeat("x", 2*maxPanic))
	}
	culprit(depth - 1)
}

func TestPanicText(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		want  string
	}{
		{"string", "boom", "boom"},
		{"error", errLost, "upstream lost"},
		{"stringer", &worker{name: "w"}, "w"},
		{"struct", struct{ secret string }{"hunter2"}, "struct { secret string }"},
		{"number", 7, "int"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := panicText(tt.value); got != tt.want {
				t.Errorf("panicText = %q, want %q", got, tt.want)
			}
		})
	}
	// An Error method that panics must not take the supervisor's loop along.
	if got := panicText((*StopTimeoutError)(nil)); got == "" {
		t.Error("panicText of a nil error is empty")
	}
}

// With nobody draining, the queue fills, drops and never blocks; failing
// sessions leave room for panics.
func TestEventQueueIsBounded(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	e := newEvents(zap.New(core))
	s := &session{worker: &worker{name: "w"}, partition: new(partition)}
	for range eventQueue {
		e.observe(suture.EventServiceTerminate{Service: s, Err: errLost})
	}
	if got, want := e.count(dropped), eventQueue/2; got != want {
		t.Errorf("%d failures dropped, want %d", got, want)
	}
	for range eventQueue {
		e.observe(suture.EventServicePanic{Service: s, PanicMsg: "boom"})
	}
	if got, want := e.count(dropped), eventQueue; got != want {
		t.Errorf("%d events dropped, want %d", got, want)
	}
	if e.count(failed) != eventQueue || e.count(panicked) != eventQueue {
		t.Errorf("counted %d failures and %d panics, want %d of each", e.count(failed), e.count(panicked), eventQueue)
	}
	if got, want := s.partition.restarts.Load(), uint64(2*eventQueue); got != want {
		t.Errorf("%d restarts counted, want %d", got, want)
	}
	e.flush()
	if got := logs.FilterMessage("service panicked").Len(); got != eventQueue/2 {
		t.Errorf("%d panics logged, want %d", got, eventQueue/2)
	}
}

func TestDropsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		e := newEvents(zap.New(core))
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- e.Serve(ctx) }()
		synctest.Wait()
		for range eventQueue + 10 {
			// All in one go: the log's turn comes after it.
			e.queue <- event{kind: backoff, level: zap.WarnLevel}
			e.total[dropped].Add(1)
		}
		synctest.Wait()
		var reported int64
		for _, line := range logs.FilterMessage("supervisor events not logged").All() {
			reported += int64(line.ContextMap()["dropped"].(uint64))
		}
		if want := int64(eventQueue + 10); reported != want {
			t.Errorf("%d drops reported, want %d", reported, want)
		}
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve = %v, want context.Canceled", err)
		}
	})
}

// What is not to be logged takes no place in the queue.
func TestQuietEventsAreOnlyCounted(t *testing.T) {
	core, _ := observer.New(zap.InfoLevel)
	e := newEvents(zap.New(core))
	e.observe(suture.EventServiceTerminate{Service: &session{worker: &worker{name: "w"}, partition: new(partition)}, Err: errLost})
	if e.count(failed) != 1 || len(e.queue) != 0 {
		t.Errorf("counted %d, queued %d, want 1 and 0", e.count(failed), len(e.queue))
	}
}

func TestCollector(t *testing.T) {
	tree := New(Options{})
	tree.observe(suture.EventBackoff{SupervisorName: "control"})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(tree.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			got[family.GetName()+" "+metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
		}
	}
	for _, name := range kindNames {
		want := 0.0
		if name == "backoff" {
			want = 1
		}
		if value, ok := got["stent_supervisor_events_total "+name]; !ok || value != want {
			t.Errorf("%s = %v (there: %t), want %v", name, value, ok, want)
		}
	}
}
