package longpoll

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what waits for a poll. The message that goes over one of them is
// taken, the next one stays in the connection: a client that does not poll
// stops its upstream as one that does not read does.
const (
	maxQueued      = 256
	maxQueuedBytes = 64 << 10
)

var (
	// ErrTimeout says that a session did not take a message within a window.
	ErrTimeout = errors.New("the session takes no messages")
	// ErrGone says that a session is over.
	ErrGone = errors.New("the session is over")
)

// Session is a long-poll client as its session sees it: one that reads and
// writes a connection. One goroutine reads it, to its end; requests write.
type Session struct {
	// static
	table      *Table
	key, route string
	conn       net.Conn
	limit      int64            // bytes of a message
	head       chan http.Header // of the 101; nil where none came
	room       chan struct{}    // tells the reader that the queue has room

	writing chan struct{} // full while somebody writes
	control atomic.Pointer[[]byte]
	written atomic.Int64 // Unix nanoseconds of the last frame

	mu sync.Mutex
	// guarded by mu
	queue  []string
	queued int   // bytes
	poll   *poll // the one that waits
	polls  int   // requests under way
	idle   *time.Timer
	code   int // of the close frame, or 1006, once it is over
	gone   bool
}

// poll is a request that waits.
type poll struct {
	wake chan struct{} // closed when it need wait no longer
	over bool          // another has come in its place; guarded by Session.mu
}

// Code of a session that ended without a close frame.
const abnormal = 1006

// News is what a poll brings.
type News struct {
	Messages []string
	// Code is that with which the session was closed, once its messages are
	// told; 0 while it lives.
	Code int
}

// Poll returns what there is for the client, or waits for it for a window. It
// tells of the session's end once, and of nothing afterwards (ErrGone). A
// further Poll ends this one.
func (s *Session) Poll(ctx context.Context) (News, error) {
	s.ping()
	timer := time.NewTimer(s.table.patience())
	defer timer.Stop()
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return News{}, ErrGone
	}
	s.began()
	defer s.arrive()
	if s.poll != nil {
		s.poll.over = true
		s.wakeLocked()
	}
	if len(s.queue) > 0 || s.code != 0 {
		defer s.mu.Unlock()
		return s.takeLocked(), nil
	}
	p := &poll{wake: make(chan struct{})}
	s.poll = p
	s.mu.Unlock()
	select {
	case <-p.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == p {
		s.poll = nil
	}
	switch {
	case ctx.Err() != nil:
		return News{}, ctx.Err() // what came stays for the next
	case p.over:
		return News{}, nil
	case s.gone:
		return News{}, ErrGone
	}
	return s.takeLocked(), nil
}

// takeLocked takes what there is.
func (s *Session) takeLocked() News {
	n := News{Messages: s.queue}
	if len(s.queue) == 0 && s.code != 0 {
		n.Code, s.gone = s.code, true
	}
	s.queue, s.queued = nil, 0
	select {
	case s.room <- struct{}{}:
	default:
	}
	return n
}

func (s *Session) wakeLocked() {
	if s.poll != nil {
		close(s.poll.wake)
		s.poll = nil
	}
}

// began notes that a request is here.
func (s *Session) began() {
	s.polls++
	if s.idle != nil {
		s.idle.Stop()
	}
}

// arrive gives the client its grace from now on, unless it is here; a session
// that has told its end is forgotten.
func (s *Session) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.polls > 0 {
		s.polls--
	}
	switch {
	case s.gone:
		s.table.remove(s)
	case s.polls > 0:
	case s.idle == nil:
		s.idle = time.AfterFunc(s.table.grace(), func() { s.expire(false) })
	default:
		s.idle.Reset(s.table.grace())
	}
}

// expire ends the session of a client that has stayed away: the connection
// closes, as that of one that vanishes.
func (s *Session) expire(now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
	}
	if s.polls > 0 && !now {
		return
	}
	s.gone = true
	s.queue, s.queued = nil, 0
	s.wakeLocked()
	s.table.remove(s)
	s.conn.Close()
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// push queues a message, and waits while there is no room for another.
func (s *Session) push(m string) {
	for {
		s.mu.Lock()
		if s.gone {
			s.mu.Unlock()
			return
		}
		if len(s.queue) < maxQueued && s.queued < maxQueuedBytes {
			break
		}
		s.mu.Unlock()
		<-s.room
	}
	defer s.mu.Unlock()
	s.queue = append(s.queue, m)
	s.queued += len(m)
	s.wakeLocked()
}

// over notes that the session has ended.
func (s *Session) over(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == 0 {
		s.code = code
	}
	s.wakeLocked()
}
