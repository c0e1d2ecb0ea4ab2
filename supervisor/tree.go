package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
)

// ErrStopping refuses a service because the tree is stopping or has stopped.
var ErrStopping = errors.New("supervision tree is stopping")

// DefaultStopTimeout is how long each branch of a tree has to stop.
const DefaultStopTimeout = 5 * time.Second

// stopSlack is how much longer a supervisor waits than those below it, so
// that the culprit itself is reported and not all its ancestors.
const stopSlack = time.Second

// Options shape a Tree. The zero value logs nothing and has one partition
// per core.
type Options struct {
	Log *zap.Logger
	// Partitions is the number of session supervisors; 0 is one per core.
	Partitions int
	// StopTimeout is how long each branch has to stop; 0 is
	// DefaultStopTimeout.
	StopTimeout time.Duration
}

// Tree is stent's supervision tree. Its methods are safe for concurrent use.
type Tree struct {
	root       *suture.Supervisor
	listeners  *branch
	control    *branch
	sessions   *branch
	partitions []*partition
	events     *events
	timeout    time.Duration

	state atomic.Uint32 // idle, serving, stopping
	turn  atomic.Uint64 // of the next session
	fatal chan error    // the first ErrTerminateSupervisorTree

	mu       sync.Mutex
	overdue  []suture.Service // the first that did not stop in time
	overdues int
}

const (
	idle uint32 = iota
	serving
	stopping
)

// New returns a tree that runs nothing yet. Services may be added before
// Serve; they start with it.
func New(o Options) *Tree {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Partitions <= 0 {
		o.Partitions = runtime.GOMAXPROCS(0)
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = DefaultStopTimeout
	}
	t := &Tree{events: newEvents(o.Log), timeout: o.StopTimeout, fatal: make(chan error, 1)}

	spec := suture.Spec{EventHook: t.observe, Sprint: panicText, Timeout: o.StopTimeout}
	t.listeners = &branch{Supervisor: suture.New("listeners", spec)}
	t.control = &branch{Supervisor: suture.New("control", spec)}

	patient := spec
	patient.Timeout += stopSlack
	t.sessions = &branch{Supervisor: suture.New("sessions", patient)}
	// A partition never pauses: strangers would wait for one bad client.
	spec.FailureThreshold = math.Inf(1)
	for i := range o.Partitions {
		p := &partition{branch: branch{Supervisor: suture.New(fmt.Sprintf("partition %d", i), spec)}}
		t.sessions.Add(p.Supervisor)
		t.partitions = append(t.partitions, p)
	}

	patient.Timeout += stopSlack
	t.root = suture.New("stent", patient)
	for _, b := range []*branch{t.control, t.sessions, t.listeners} {
		b.token = t.root.Add(b.Supervisor)
	}
	// The log is a control service of our own; an idle tree takes it.
	_, _ = t.AddControl(t.events)
	return t
}

// Serve runs the tree, once, until ctx ends or a service asks for its end
// with suture.ErrTerminateSupervisorTree. It then stops listeners, sessions
// and control, in that order, and joins them. It returns nil after a clean
// stop; the asking service's error; and a *StopTimeoutError when a service
// outlived StopTimeout and had to be left behind.
func (t *Tree) Serve(ctx context.Context) error {
	if !t.state.CompareAndSwap(idle, serving) {
		return errors.New("serve supervision tree: it has been served already")
	}
	// The services outlive ctx by the order in which they stop.
	root, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := t.root.ServeBackground(root)

	var fatal error
	select {
	case <-ctx.Done():
	case fatal = <-t.fatal:
	}
	t.state.Store(stopping)
	for _, b := range []*branch{t.listeners, t.sessions, t.control} {
		// Who did not stop in time is known by name from suture's event.
		_ = t.root.RemoveAndWait(b.token, t.timeout+2*stopSlack)
	}
	cancel()
	<-ended
	t.events.flush()
	return errors.Join(fatal, t.stopTimeoutError())
}

// AddListener adds a service to the listeners. It starts at once, or with
// Serve. The token is for Remove. The error is ErrStopping.
func (t *Tree) AddListener(s suture.Service) (suture.ServiceToken, error) {
	return t.add(t.listeners, s)
}

// AddControl adds a service to the control branch, as AddListener does.
func (t *Tree) AddControl(s suture.Service) (suture.ServiceToken, error) {
	return t.add(t.control, s)
}

func (t *Tree) add(b *branch, s suture.Service) (suture.ServiceToken, error) {
	if t.state.Load() == stopping {
		return suture.ServiceToken{}, ErrStopping
	}
	token := b.Add(&service{Service: s, name: nameOf(s), branch: b, terminate: t.terminate})
	if token == (suture.ServiceToken{}) {
		return token, ErrStopping
	}
	return token, nil
}

// Remove stops a listener or control service, waits until it has stopped,
// for StopTimeout at most, and forgets it. The error is ErrStopping when the
// tree does all that already; before Serve nothing can be removed.
func (t *Tree) Remove(token suture.ServiceToken) error {
	err := t.listeners.RemoveAndWait(token, t.timeout)
	if errors.Is(err, suture.ErrWrongSupervisor) {
		err = t.control.RemoveAndWait(token, t.timeout)
	}
	if err != nil && t.state.Load() == stopping {
		return ErrStopping
	}
	if err != nil {
		return fmt.Errorf("remove service: %w", err)
	}
	return nil
}

// AddSession starts w in one of the partitions. When it returns nil, w's
// Serve is called at least once, even if the tree stops meanwhile, so w may
// own a connection. The error is ErrStopping.
func (t *Tree) AddSession(w suture.Service) error {
	if t.state.Load() == stopping {
		return ErrStopping
	}
	p := t.nextPartition()
	p.workers.Add(1)
	if p.Add(&session{worker: w, partition: p}) == (suture.ServiceToken{}) {
		p.workers.Add(-1)
		return ErrStopping
	}
	return nil
}

// nextPartition returns the one whose turn it is or its neighbour, whichever
// has fewer workers: turns alone would pile up every other session of a
// client that opens a long and a short one each time.
func (t *Tree) nextPartition() *partition {
	turn, n := t.turn.Add(1), uint64(len(t.partitions))
	p, neighbour := t.partitions[turn%n], t.partitions[(turn+1)%n]
	if neighbour.workers.Load() < p.workers.Load() {
		return neighbour
	}
	return p
}

// Collector returns the metric stent_supervisor_events_total.
func (t *Tree) Collector() prometheus.Collector { return t.events }

// terminate asks Serve to stop the tree. The first to ask is heard.
func (t *Tree) terminate(cause error) {
	select {
	case t.fatal <- cause:
	default:
	}
}

// observe is the event hook of every supervisor.
func (t *Tree) observe(ev suture.Event) {
	if late, ok := ev.(suture.EventStopTimeout); ok && t.state.Load() == stopping {
		t.mu.Lock()
		if len(t.overdue) < maxOverdue {
			t.overdue = append(t.overdue, late.Service)
		}
		t.overdues++
		t.mu.Unlock()
	}
	t.events.observe(ev)
}

// maxOverdue bounds the names in a StopTimeoutError.
const maxOverdue = 16

// StopTimeoutError names the services that were told to stop and did not.
type StopTimeoutError struct {
	Services []string // the first 16
	Others   int      // how many more
}

func (e *StopTimeoutError) Error() string {
	names := strings.Join(e.Services, ", ")
	if e.Others > 0 {
		names = fmt.Sprintf("%s and %d others", names, e.Others)
	}
	return "stop supervision tree: still running: " + names
}

func (t *Tree) stopTimeoutError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.overdues == 0 {
		return nil
	}
	e := &StopTimeoutError{Others: t.overdues - len(t.overdue)}
	for _, s := range t.overdue {
		e.Services = append(e.Services, nameOf(s))
	}
	return e
}
