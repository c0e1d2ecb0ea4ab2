package proxy

import (
	"context"
	"slices"
	"time"

	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// departures are the sessions of a pool that were sent to another target and
// have not arrived. One goes ahead, and the others follow it while none is
// held up: targets that accept connections and refuse sessions cost few
// clients then, and not all of them.
type departures struct {
	underWay []departure
	arrived  bool // one has, since the last that came to nothing
	failures int  // in a row
	pause    time.Time
}

type departure struct {
	session  *Session
	from     *upstream.Target
	restarts int32 // before
	at       time.Time
}

const (
	// slowMove is how long one session may hold up the others: on its way out
	// of a long message, or on its way in.
	slowMove = time.Second
	// longestWait bounds the pause behind moves that came to nothing, which
	// doubles from a second on.
	longestWait = time.Minute
)

// depart moves a session and reports whether it had an upstream to leave.
func (d *departures) depart(s *Session, to *upstream.Target) bool {
	one := departure{s, s.target.Load(), s.restarts.Load(), time.Now()}
	if !s.move(to) {
		return false
	}
	d.underWay = append(d.underWay, one)
	return true
}

// clear reports whether one more session may go.
func (d *departures) clear(now time.Time) bool {
	ahead := 0
	stuck := false
	d.underWay = slices.DeleteFunc(d.underWay, func(one departure) bool {
		switch one.outcome() {
		case moveArrived:
			d.arrived, d.failures = true, 0
			return true
		case moveFailed:
			d.arrived = false
			d.pause = now.Add(min(time.Second<<d.failures, longestWait))
			d.failures = min(d.failures+1, 10)
			return true
		case moveOver:
			return true
		case moveLeaving:
			if now.Sub(one.at) < slowMove {
				ahead++
			}
		case moveHeld:
			ahead++
			since := one.session.heldAt.Load()
			stuck = stuck || since != 0 && now.Sub(time.Unix(0, since)) > slowMove
		}
		return false
	})
	return !stuck && (d.arrived || ahead == 0) && !now.Before(d.pause)
}

// outcome is how far a move has come.
type outcome uint8

const (
	moveLeaving outcome = iota // its old upstream is not closed yet
	moveHeld                   // between the two
	moveArrived                // on another target
	moveFailed                 // back where it was, or given up
	moveOver                   // its client has gone
)

func (d departure) outcome() outcome {
	s := d.session
	switch s.State() {
	case Closing:
		if end := s.link.Ended(); end != nil && (end.Cause == relay.GaveUp || end.Cause == relay.RedialRefused) {
			return moveFailed
		}
		return moveOver
	case HeldState:
		if s.target.Load() == d.from {
			return moveHeld
		}
		return moveArrived // and lost again
	case Connecting, Open:
	}
	switch {
	case s.restarts.Load() == d.restarts:
		return moveLeaving
	case s.target.Load() != d.from:
		return moveArrived
	case s.State() != Open: // by now
		return moveHeld
	}
	return moveFailed
}

// turn returns when one more session may leave, at a rate of so many a
// second, or false when ctx ends before.
func (d *departures) turn(ctx context.Context, p *pace, rate float64) bool {
	for p.wait(ctx, rate) {
		if d.clear(time.Now()) {
			return true
		}
	}
	return false
}

// pace spaces events evenly. The first is due at once.
type pace struct{ next time.Time }

// wait returns when the next event is due, at a rate of so many a second, or
// false when ctx ends before.
func (p *pace) wait(ctx context.Context, rate float64) bool {
	if !sleep(ctx, time.Until(p.next)) {
		return false
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(time.Second) / rate))
	return true
}
