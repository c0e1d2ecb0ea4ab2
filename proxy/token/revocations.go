package token

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"
)

// Revocation refuses the tokens of a socket id, or one token.
type Revocation struct {
	// ID is a socket id, or "".
	ID string
	// TokenID is the jti of a token, or "".
	TokenID string
	// Until is when it ends; zero is never.
	Until time.Time
}

// subject is what a revocation is about.
type subject struct{ id, tokenID string }

func (r Revocation) subject() subject { return subject{r.ID, r.TokenID} }

// maxRevocations bounds how many there may be.
const maxRevocations = 100_000

// ErrTooMany refuses a revocation because there are too many.
var ErrTooMany = errors.New("too many revocations are in force")

// Revocations are those in force. They belong to the process, not to a
// configuration. The zero value is empty.
type Revocations struct {
	mu sync.RWMutex
	// guarded by mu
	until map[subject]time.Time
	sweep int // at how many those that are over are looked for
}

// Add puts a revocation into force. One about the same is replaced.
func (r *Revocations) Add(one Revocation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil {
		r.until = make(map[subject]time.Time)
	}
	_, known := r.until[one.subject()]
	if !known && len(r.until) >= min(max(r.sweep, 1024), maxRevocations) {
		now := time.Now()
		for s, until := range r.until {
			if over(until, now) {
				delete(r.until, s)
			}
		}
		r.sweep = 2 * len(r.until)
	}
	if !known && len(r.until) >= maxRevocations {
		return ErrTooMany
	}
	r.until[one.subject()] = one.Until
	return nil
}

// Remove takes a revocation back, and reports whether it was in force.
func (r *Revocations) Remove(one Revocation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[one.subject()]
	delete(r.until, one.subject())
	return ok && !over(until, time.Now())
}

// List returns the revocations in force, in the order of what they are about.
func (r *Revocations) List() []Revocation {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	list := make([]Revocation, 0, len(r.until))
	for s, until := range r.until {
		if !over(until, now) {
			list = append(list, Revocation{s.id, s.tokenID, until})
		}
	}
	slices.SortFunc(list, func(a, b Revocation) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.TokenID, b.TokenID))
	})
	return list
}

// Refuses says whether a revocation of the socket id, or of one of the
// tokens, is in force. Empty ones are nobody's. On nil it is false.
func (r *Revocations) Refuses(id string, tokenIDs ...string) bool {
	if r == nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.until) == 0 {
		return false
	}
	now := time.Now()
	in := func(s subject) bool {
		until, ok := r.until[s]
		return ok && s != subject{} && !over(until, now)
	}
	return in(subject{id: id}) || slices.ContainsFunc(tokenIDs, func(t string) bool { return in(subject{tokenID: t}) })
}

func over(until, now time.Time) bool { return !until.IsZero() && !now.Before(until) }
