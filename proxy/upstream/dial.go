package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/stentproxy/stent/config"
)

// lease is a place on a target, taken when it is picked, and what it is
// dialled with. The place belongs to the dial, and to the Conn after it.
type lease struct {
	target *Target
	policy *policy
	tls    *tls.Config
}

// Dial picks a target and makes the handshake with it, up to dial.attempts
// times, each with another target. The Conn holds a place of max_sessions.
//
// A well-formed answer other than 101 ends it with a *Refused, which the
// caller closes: the answer is the client's, and other targets are not asked
// (but see Handshake.Redial). Other errors are ErrNoTarget when there is none to try, a *DialError, and
// ctx's error when that ended first. Once Dial has returned, ctx has no hold
// on the connection.
func (p *Pool) Dial(ctx context.Context, h *Handshake) (*Conn, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("dial upstream %s: %w", p.name, err)
	}
	var tried []Attempt
	for {
		l, err := p.reserve(ctx, h, tried)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		conn, err := l.dial(ctx, h)
		l.settle(classify(ctx, err), time.Since(start), err)
		if err == nil {
			return conn, nil
		}
		if refused, ok := errors.AsType[*Refused](err); ok {
			if !h.Redial || !refused.Passing() {
				return nil, err
			}
			refused.Response.Body.Close()
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("dial upstream %s: %w", p.name, ctx.Err())
		}
		tried = append(tried, Attempt{l.target, err})
	}
}

// caller is who wants a place on a target: a handshake or a plain request.
type caller interface {
	// plain reports whether the place is none of max_sessions.
	plain() bool
	// take picks one of the candidates and takes the place; again says that
	// others were asked before. p.mu is held.
	take(p *Pool, candidates []*Target, again bool) *Target
}

// reserve picks a target that was not tried yet and takes a place on it, up
// to dial.attempts times; then a *DialError says why none of them did. Where
// nothing is known of a pool's targets since DNS has not answered for the
// first time, it waits for that as long as a dial may take.
func (p *Pool) reserve(ctx context.Context, c caller, tried []Attempt) (lease, error) {
	l, settled, err := p.tryReserve(c, tried)
	if settled == nil {
		return l, err
	}
	wait := time.NewTimer(l.policy.timeout)
	defer wait.Stop()
	select {
	case <-settled:
		l, _, err = p.tryReserve(c, tried)
		return l, err
	case <-wait.C:
		return l, err
	case <-ctx.Done():
		return l, fmt.Errorf("dial upstream %s: %w", p.name, ctx.Err())
	}
}

// tryReserve is reserve without the wait. With an error it returns what to
// wait for before it is worth trying again, if anything.
func (p *Pool) tryReserve(c caller, tried []Attempt) (lease, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var candidates []*Target
	if len(tried) < p.policy.attempts {
		candidates = p.available(c.plain(), tried, now)
	}
	switch {
	case len(candidates) > 0:
		t := c.take(p, candidates, len(tried) > 0)
		t.asked = now
		return lease{t, p.policy, t.tls}, nil, nil
	case len(tried) > 0:
		return lease{}, nil, &DialError{Pool: p.name, Attempts: tried}
	case len(p.unsettled) > 0:
		return lease{policy: p.policy}, p.settled, p.noTarget(now)
	}
	return lease{}, nil, p.noTarget(now)
}

func (h *Handshake) plain() bool { return false }

func (h *Handshake) take(p *Pool, candidates []*Target, again bool) *Target {
	t := p.pick(h, candidates, again || h.Again)
	t.dialling++
	t.dials++
	return t
}

// pick chooses among the candidates by the pool's balance and the client's
// own wishes. p.mu is held.
func (p *Pool) pick(h *Handshake, candidates []*Target, again bool) *Target {
	if h.Prefer != nil && slices.Contains(candidates, h.Prefer) {
		return h.Prefer
	}
	if again {
		candidates = hopeful(candidates)
	}
	keep := candidates[:0]
	for _, t := range candidates {
		if t != h.Avoid || p.policy.balance.kind == config.BalanceHash {
			keep = append(keep, t)
		}
	}
	if len(keep) == 0 {
		return h.Avoid
	}
	return choose(p.policy.balance, keep, h, p.rng)
}

// hopeful returns those of the candidates that are not doubtful; where all
// are, the one whose last dial is the longest ago. A balance alone would ask
// what is dead again and again, since it has the fewest sessions, and never
// come to what lives.
func hopeful(candidates []*Target) []*Target {
	oldest := candidates[0]
	keep := candidates[:0]
	for _, t := range candidates {
		if !t.doubtful {
			keep = append(keep, t)
		}
		if t.asked.Before(oldest.asked) {
			oldest = t
		}
	}
	if len(keep) == 0 {
		keep = append(keep, oldest)
	}
	return keep
}

// settle ends the dial: the place becomes the session's or is free again,
// and the result is counted.
func (l lease) settle(r result, took time.Duration, err error) {
	t, p := l.target, l.target.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	t.dialling--
	p.results[r]++
	switch r {
	case resultOK:
		t.sessions++
		t.succeeded()
		p.pools.seconds.Observe(took.Seconds())
	case resultRefused:
		// A 5xx says nothing good of the target, but it is there and the
		// client has its answer: neither a failure nor a success.
		if refused, ok := errors.AsType[*Refused](err); ok {
			if refused.Response.StatusCode < 500 {
				t.succeeded()
			}
			t.doubtful = refused.Passing()
		}
		p.pools.seconds.Observe(took.Seconds())
	case resultUnsuitable:
		t.succeeded()
	case resultFailed, resultTimeout, resultBadAnswer:
		t.failure(time.Now(), err)
	case resultCanceled, resultCount:
	}
	p.forget(t)
}

// dial makes one connection and the handshake over it.
func (l lease) dial(parent context.Context, h *Handshake) (*Conn, error) {
	ctx, cancel := context.WithTimeout(parent, l.policy.timeout)
	defer cancel()
	nc, err := l.connect(ctx)
	if err != nil {
		return nil, l.timedOut(parent, err)
	}
	conn, err := l.shake(ctx, nc, h, l.target.addr.path)
	if err == nil {
		return conn, nil
	}
	if _, ok := errors.AsType[*Refused](err); ok {
		return nil, err // the connection is the body's
	}
	nc.Close()
	return nil, l.timedOut(parent, err)
}

// timedOut makes err an ErrTimeout when the dial's own time ran out, or the
// kernel's for a connect, and not the caller's.
func (l lease) timedOut(parent context.Context, err error) error {
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() && parent.Err() == nil {
		// Not wrapped: it is a context.DeadlineExceeded, but not the caller's.
		return fmt.Errorf("%w: %v", ErrTimeout, err)
	}
	return err
}

// connect opens the connection, with TLS where the target has it.
func (l lease) connect(ctx context.Context) (net.Conn, error) {
	a := l.target.addr
	nc, err := l.target.pool.pools.dial(ctx, a.network, a.dial)
	if err != nil || l.tls == nil {
		return nc, err
	}
	secure := tls.Client(l.target.pool.pools.footing(nc), l.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("tls handshake: %w", err)
	}
	return secure, nil
}
