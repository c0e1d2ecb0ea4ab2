package upstream

import (
	"crypto/tls"
	"net/http"
	"time"
)

// State says whether new sessions go to a target.
type State uint8

// The states, in the order in which they hide each other: a draining target
// is draining whatever its health.
const (
	Up       State = iota
	Ejected        // too many dials failed in a row
	Down           // its health checks fail
	Draining       // drained by an operator, or no longer in the config
)

var stateNames = [...]string{Up: "up", Ejected: "ejected", Down: "down", Draining: "draining"}

// String returns the word of the admin API.
func (s State) String() string { return stateNames[s] }

// MarshalText writes the word of the admin API.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Target is one backend address of a pool. It lives as long as the config
// lists its address or sessions are on it, through any number of reloads.
type Target struct {
	pool *Pool
	addr address

	// Guarded by pool.mu, as all below is.
	name     string
	hash     uint64 // of the name, for rendezvous hashing
	weight   int
	priority int         // of an SRV record; lower is picked first
	tls      *tls.Config // nil for a plain target
	listed   bool        // in the config or in DNS
	drained  bool        // by an operator
	evicts   bool        // no session stays that can't be moved

	// Health and outlier detection.
	down    bool
	checked bool // since its checks began
	streak  int  // checks in a row that contradict down
	failed  int  // dials failed in a row
	ejected time.Time
	// doubtful says that the last dial that has ended came to nothing, for no
	// fault of its client's; asked is when the last one began.
	doubtful bool
	asked    time.Time

	// What is on it.
	sessions int // established
	dialling int // places taken by dials under way
	requests int // plain HTTP
	turn     int // of smooth round robin

	dials, failures uint64

	transport    *http.Transport // for plain HTTP; made when first wanted
	transportTLS *tls.Config     // what transport was made for
}

// Name returns the target's name: the config's, or host:port.
func (t *Target) Name() string {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.name
}

// Address returns the canonical URL of the target, by which its state is
// kept.
func (t *Target) Address() string { return t.addr.url }

// Host returns the Host header of the target's own.
func (t *Target) Host() string { return t.addr.host }

// Pool returns the pool that the target is in.
func (t *Target) Pool() *Pool { return t.pool }

// State returns the target's state at this moment.
func (t *Target) State() State {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.state(time.Now())
}

// Leaving reports whether the sessions on the target are to move away: it
// was drained, or is gone from the config or from DNS.
func (t *Target) Leaving() bool {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.drained || !t.listed
}

// Evict makes a target that is drained let no session stay that can't be
// moved, until it is undrained.
func (t *Target) Evict() {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.evicts = true
}

// Evicts reports whether no session that can't be moved should stay.
func (t *Target) Evicts() bool {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.evicts && (t.drained || !t.listed)
}

func (t *Target) state(now time.Time) State {
	switch {
	case t.drained || !t.listed:
		return Draining
	case t.down:
		return Down
	case now.Before(t.ejected):
		return Ejected
	}
	return Up
}

// load is what balancing counts.
func (t *Target) load() int { return t.sessions + t.dialling + t.requests }

// full reports whether max_sessions leaves no place. Plain requests don't
// take one.
func (t *Target) full(maxSessions int) bool {
	return maxSessions > 0 && t.sessions+t.dialling >= maxSessions
}

// release gives back the place of an established session.
func (t *Target) release() {
	t.pool.mu.Lock()
	t.sessions--
	t.pool.forget(t)
	t.pool.mu.Unlock()
}

// busy reports whether anything is on the target.
func (t *Target) busy() bool { return t.sessions+t.dialling+t.requests > 0 }

// idle closes the connections that wait for plain requests.
func (t *Target) idle() {
	if t.transport != nil {
		t.transport.CloseIdleConnections()
	}
}
