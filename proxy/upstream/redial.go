package upstream

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// defaultMoveRate is how many sessions a second leave a draining target where
// the pool has no redial_rate.
const defaultMoveRate = 200

// redialer spreads the redials of one pool over time. Those who wait stand
// in line, and only the first of them holds a reservation: with one for each,
// sessions that gave up would leave their places empty, since rate.Limiter
// gives back only the newest.
type redialer struct {
	limiter *rate.Limiter
	turn    chan struct{}
}

func newRedialer() *redialer {
	return &redialer{limiter: rate.NewLimiter(rate.Inf, 1), turn: make(chan struct{}, 1)}
}

// set changes the rate, in redials a second; 0 is no limit. A burst is at
// most what a quarter of a second brings.
func (r *redialer) set(perSecond float64) {
	if perSecond <= 0 {
		r.limiter.SetLimit(rate.Inf)
		return
	}
	r.limiter.SetLimit(rate.Limit(perSecond))
	r.limiter.SetBurst(max(1, int(perSecond/4)))
}

func (r *redialer) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || r.limiter.Limit() == rate.Inf {
		return err
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	place := r.limiter.Reserve()
	pause := time.NewTimer(place.Delay())
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		place.Cancel()
		return ctx.Err()
	}
}

// WaitRedial returns when the pool's redial_rate lets one more redial go, in
// the order of the calls, or with ctx's error. First dials don't ask.
func (p *Pool) WaitRedial(ctx context.Context) error { return p.redial.wait(ctx) }

// MoveRate returns how many sessions a second may be moved off a draining
// target: redial_rate, or 200 where there is none.
func (p *Pool) MoveRate() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy.redialRate > 0 {
		return p.policy.redialRate
	}
	return defaultMoveRate
}
