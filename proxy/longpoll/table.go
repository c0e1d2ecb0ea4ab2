// Package longpoll is the client's side of Phoenix's long-poll transport: it
// stands between requests that come and go and the connection of a WebSocket
// session that stays. A Client is what a session is opened with in place of a
// browser's connection; a Table knows the sessions by the tokens that their
// clients hold.
//
// A session's end of the connection is a socket like any other, so whatever
// counts, limits, closes or moves sessions need not know of this package.
package longpoll

import (
	"crypto/rand"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultWindow is how long a poll waits for a message, as in Phoenix.
const DefaultWindow = 10 * time.Second

// Table holds the long-poll sessions of a process.
type Table struct {
	// window is how long a poll waits, and away how long a client may stay away
	// before its session ends, in nanoseconds.
	window, away atomic.Int64

	secret  [32]byte
	readers sync.WaitGroup
	pair    func() (session, client net.Conn, err error) // a test's; nil is the real one

	mu sync.Mutex
	// guarded by mu
	sessions map[string]*Session
	closed   bool
}

// NewTable returns an empty Table. Its tokens are worth nothing to another.
func NewTable() *Table {
	t := &Table{sessions: make(map[string]*Session)}
	t.SetWindow(DefaultWindow, DefaultWindow*3/2)
	rand.Read(t.secret[:]) // never fails
	return t
}

// SetWindow changes how long a poll waits, and how long a client may stay
// away, from the next poll on.
func (t *Table) SetWindow(window, away time.Duration) {
	t.window.Store(int64(window))
	t.away.Store(int64(away))
}

func (t *Table) patience() time.Duration { return time.Duration(t.window.Load()) }

// grace is how long a client may stay away.
func (t *Table) grace() time.Duration { return time.Duration(t.away.Load()) }

// Find returns the session that a token names, on the route that it was
// opened on, or nil.
func (t *Table) Find(token, route string) *Session {
	key, ok := t.verify(token)
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[key]
	if s == nil || s.route != route {
		return nil
	}
	return s
}

// Load is what a Table has in hand.
type Load struct {
	Sessions int // whose clients may come back
	Waiting  int // polls
	Queued   int // bytes of messages that wait for a poll
}

// Load returns what the Table has in hand, one session after the other.
func (t *Table) Load() Load {
	t.mu.Lock()
	all := make([]*Session, 0, len(t.sessions))
	for _, s := range t.sessions {
		all = append(all, s)
	}
	t.mu.Unlock()
	l := Load{Sessions: len(all)}
	for _, s := range all {
		s.mu.Lock()
		if s.poll != nil {
			l.Waiting++
		}
		l.Queued += s.queued
		s.mu.Unlock()
	}
	return l
}

// add makes a session known; false after Close.
func (t *Table) add(s *Session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.sessions[s.key] = s
	return true
}

func (t *Table) remove(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, s.key)
}

// Close ends what is left and joins the sessions' readers.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	left := make([]*Session, 0, len(t.sessions))
	for _, s := range t.sessions {
		left = append(left, s)
	}
	t.mu.Unlock()
	for _, s := range left {
		s.expire(true)
	}
	t.readers.Wait()
}
