package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/thejerf/suture/v4"
)

// branch is a supervisor of the tree.
type branch struct {
	*suture.Supervisor
	token    suture.ServiceToken // in its parent
	restarts atomic.Uint64       // of all its children, ever
}

// partition is a branch of sessions.
type partition struct {
	branch
	workers atomic.Int64
}

// service is a listener or a control service in its branch.
type service struct {
	suture.Service
	name      string
	branch    *branch
	terminate func(error)
	restarts  atomic.Uint64
}

// Serve runs the service once. An ErrTerminateSupervisorTree is kept from
// suture, which would stop all branches at once: the tree has its own order.
func (s *service) Serve(ctx context.Context) error {
	err := s.Service.Serve(ctx)
	if errors.Is(err, suture.ErrTerminateSupervisorTree) {
		s.terminate(fmt.Errorf("%s: %w", s.name, err))
		return suture.ErrDoNotRestart
	}
	return err
}

func (s *service) String() string { return s.name }

var _ suture.HasSupervisor = (*service)(nil)

// GetSupervisor lets suture hand its event hook to a service that is a
// supervisor itself. Nil means that it is none.
func (s *service) GetSupervisor() *suture.Supervisor {
	if has, ok := s.Service.(suture.HasSupervisor); ok {
		return has.GetSupervisor()
	}
	return nil
}

func (s *service) restarted() {
	s.restarts.Add(1)
	s.branch.restarts.Add(1)
}

// session is a worker in its partition. There is one per client, so it holds
// no more than it must.
type session struct {
	worker    suture.Service
	partition *partition
}

// Serve runs the worker once and counts it out when suture will forget it.
func (s *session) Serve(ctx context.Context) error {
	err := s.worker.Serve(ctx)
	if errors.Is(err, suture.ErrTerminateSupervisorTree) {
		// One client must never end all others.
		err = suture.ErrDoNotRestart
	}
	if ctx.Err() != nil || errors.Is(err, suture.ErrDoNotRestart) {
		s.partition.workers.Add(-1)
	}
	return err
}

// String is what suture keeps as the name of every session: one constant, so
// that no string is built and held for each. Events carry the worker's own.
func (s *session) String() string { return "session" }

func (s *session) restarted() { s.partition.restarts.Add(1) }

// nameOf returns what a service is called in logs: its String, or its type
// where it has none. Suture would print all its fields, secrets included.
func nameOf(s suture.Service) string {
	if session, ok := s.(*session); ok {
		s = session.worker
	}
	if named, ok := s.(fmt.Stringer); ok {
		return named.String()
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", s), "*")
}
