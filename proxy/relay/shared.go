package relay

import (
	"sync"
	"time"
)

// Shared is one Rate that several sessions keep together: what any of them
// sends counts for all. Its OnLimit is not used; each session has its route's.
type Shared struct {
	mu              sync.Mutex
	messages, bytes bucket
}

// NewShared returns a Shared whose bursts are full.
func NewShared(r Rate) *Shared {
	t := now()
	return &Shared{messages: newBucket(r.Messages, r.Burst, t), bytes: newBucket(r.Bytes, r.Burst, t)}
}

// Set changes the rate for all who share it. A debt stays.
func (s *Shared) Set(r Rate) {
	t := now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages.set(r.Messages, r.Burst, t)
	s.bytes.set(r.Bytes, r.Burst, t)
}

// Full reports whether both bursts are whole, so that a new Shared would be
// the same.
func (s *Shared) Full() bool {
	t := now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages.full(t) && s.bytes.full(t)
}

// debt returns how long it takes until a message may begin. mu is held.
func (s *Shared) debt(t instant) time.Duration {
	return max(s.messages.debt(t, 1), s.bytes.debt(t, 0))
}

// share is one session's part in a Shared. Its session's reader owns it.
type share struct {
	shared *Shared
	// A message that has to wait takes its place in the queue at once: what it
	// needs is taken from the Shared, with a guess of its size, and slot is
	// when it may begin. So those that wait pass one after another at the
	// rate, and not all at once whenever there is one token.
	placed bool
	slot   instant
	guess  int64 // of the next message's size: the last one's
	credit int64 // bytes taken ahead for the current message
	size   int64 // of the current message so far
}

// wait returns how long the session's message has to wait, which begins next.
func (s *share) wait(t instant) time.Duration {
	if !s.placed {
		s.shared.mu.Lock()
		defer s.shared.mu.Unlock()
		d := s.shared.debt(t)
		if d <= 0 {
			return 0
		}
		s.shared.messages.take(t, 1)
		s.shared.bytes.take(t, float64(s.guess))
		s.placed, s.slot = true, t.add(d)
	}
	return time.Duration(max(0, s.slot-t))
}

// begin takes what a message that begins needs. Unless always, it takes
// nothing and returns false where that is not there.
func (s *share) begin(t instant, always bool) bool {
	if s.placed {
		s.placed, s.credit = false, s.guess
		return true
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if !always && s.shared.debt(t) > 0 {
		return false
	}
	s.shared.messages.take(t, 1)
	return true
}

// undo gives back what begin has taken.
func (s *share) undo(t instant) {
	s.shared.mu.Lock()
	s.shared.messages.take(t, -1)
	s.shared.mu.Unlock()
}

// pay takes n bytes that have come. Nothing is taken for bytes that are only
// announced: a client could put all others into debt by a header.
func (s *share) pay(t instant, n int64) {
	s.size += n
	ahead := min(n, s.credit)
	s.credit -= ahead
	s.charge(t, n-ahead)
}

// end settles a message that is complete.
func (s *share) end(t instant) {
	s.charge(t, -s.credit)
	s.guess, s.size, s.credit = s.size, 0, 0
}

func (s *share) charge(t instant, n int64) {
	if n == 0 {
		return
	}
	s.shared.mu.Lock()
	s.shared.bytes.take(t, float64(n))
	s.shared.mu.Unlock()
}

// owed returns how long it takes until what has been paid is there.
func (s *share) owed(t instant) time.Duration {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return s.shared.bytes.debt(t, 0)
}
