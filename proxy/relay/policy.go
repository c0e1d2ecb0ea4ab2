package relay

import (
	"slices"
	"time"
)

// Policy is what a route asks of its sessions. It is compiled once and
// shared; nothing changes it.
type Policy struct {
	Rules *Table

	// MessageSize bounds a message's payload in bytes, both ways; 0 is no
	// limit.
	MessageSize int64
	// Assemble makes this message mode: whole messages go through the
	// session's Inspector.
	Assemble bool

	Rate      Rate
	Keepalive Keepalive
	Timeouts  Timeouts

	// Continuity is nil where a lost upstream ends the session.
	Continuity *Continuity
}

// Rate bounds what the client sends; zero rates are no limit.
type Rate struct {
	Messages, Bytes float64 // a second
	Burst           time.Duration
	OnLimit         OnLimit
}

// OnLimit says what happens to a client above its rate.
type OnLimit uint8

// The values of OnLimit.
const (
	Slow OnLimit = iota
	DropMessage
	CloseSession
)

// Keepalive pings a leg after Interval without a frame from it; 0 is never.
type Keepalive struct{ Interval, Timeout time.Duration }

// Timeouts bound a session; 0 is never, except Close.
type Timeouts struct{ Idle, Write, Lifetime, Close time.Duration }

// Continuity keeps the client while its upstream is lost.
type Continuity struct {
	// Whole is the payload up to which a message is passed on only when it
	// is complete.
	Whole int64
	// Buffer is the client data kept while held, in bytes.
	Buffer int
	// CloseWhenFull ends the session when Buffer is full; otherwise the
	// client is read no further.
	CloseWhenFull bool
	// OnClose are the upstream close codes that mean "come back".
	OnClose []int
	// ReplayFirst client messages, up to ReplayBytes, are repeated to each
	// new upstream.
	ReplayFirst int
	ReplayBytes int
}

// comesBack reports whether an upstream's close code asks for a redial.
func (p *Policy) comesBack(code int) bool {
	return p.Continuity != nil && slices.Contains(p.Continuity.OnClose, code)
}
