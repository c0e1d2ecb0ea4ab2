package relay

import "time"

// bucket is a token bucket that may go into debt: what is already here is
// let through whole, and the debt is worked off before the next. That keeps
// a long run's rate exact whatever the sizes. A rate of 0 is no limit.
type bucket struct {
	rate, burst float64
	tokens      float64
	last        instant
}

// newBucket returns a full bucket that holds burst's worth of the rate, at
// least one token.
func newBucket(rate float64, burst time.Duration, t instant) bucket {
	b := bucket{rate: rate, burst: max(1, rate*burst.Seconds()), last: t}
	b.tokens = b.burst
	return b
}

// set changes the rate; what was gained or owed by t stays.
func (b *bucket) set(rate float64, burst time.Duration, t instant) {
	b.refill(t)
	fresh := newBucket(rate, burst, t)
	if b.rate > 0 {
		fresh.tokens = min(fresh.burst, b.tokens)
	}
	*b = fresh
}

// take removes n tokens, or gives them back.
func (b *bucket) take(t instant, n float64) {
	if b.rate > 0 {
		b.refill(t)
		b.tokens -= n
	}
}

func (b *bucket) full(t instant) bool {
	b.refill(t)
	return b.rate <= 0 || b.tokens >= b.burst
}

func (b *bucket) refill(t instant) {
	if t > b.last {
		b.tokens = min(b.burst, b.tokens+b.rate*time.Duration(t-b.last).Seconds())
		b.last = t
	}
}

// debt returns how long it takes until n tokens are there.
func (b *bucket) debt(t instant, n float64) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.refill(t)
	if b.tokens >= n {
		return 0
	}
	return time.Duration((n - b.tokens) / b.rate * float64(time.Second))
}

// limiter applies a Rate to a stream of messages, and those that its session
// shares with others.
type limiter struct {
	messages, bytes bucket
	onLimit         OnLimit
	shares          []share
}

// newLimiter returns nil where there is nothing to limit.
func newLimiter(r Rate, shared []*Shared, t instant) *limiter {
	if r.Messages <= 0 && r.Bytes <= 0 && len(shared) == 0 {
		return nil
	}
	l := &limiter{messages: newBucket(r.Messages, r.Burst, t), bytes: newBucket(r.Bytes, r.Burst, t), onLimit: r.OnLimit}
	for _, s := range shared {
		l.shares = append(l.shares, share{shared: s})
	}
	return l
}

// debt returns how long the next message has to wait by the session's own
// rate.
func (l *limiter) debt(t instant) time.Duration {
	return max(l.messages.debt(t, 1), l.bytes.debt(t, 0))
}

// queue returns how long a message that is there has to wait by the rates
// that are shared. Asking for it takes a place, so it is asked only of a
// message that will begin next.
func (l *limiter) queue(t instant) (d time.Duration) {
	if l.onLimit != Slow {
		return 0
	}
	for i := range l.shares {
		d = max(d, l.shares[i].wait(t))
	}
	return d
}

// begin takes the token of a message that begins, and returns false where
// the message is over a rate that does not slow the client down. The bytes
// are paid as they come.
func (l *limiter) begin(t instant) bool {
	slow := l.onLimit == Slow
	if !slow && l.debt(t) > 0 {
		return false
	}
	for i := range l.shares {
		if l.shares[i].begin(t, slow) {
			continue
		}
		for j := range i {
			l.shares[j].undo(t)
		}
		return false
	}
	l.messages.take(t, 1)
	return true
}

// pay takes n bytes of a message.
func (l *limiter) pay(t instant, n int64) {
	l.bytes.take(t, float64(n))
	for i := range l.shares {
		l.shares[i].pay(t, n)
	}
}

// owed returns how long a message has to wait inside of it, so that one that
// never ends is no way around the rate.
func (l *limiter) owed(t instant) time.Duration {
	d := l.bytes.debt(t, 0)
	for i := range l.shares {
		d = max(d, l.shares[i].owed(t))
	}
	return d
}

// end is told that a message is complete.
func (l *limiter) end(t instant) {
	for i := range l.shares {
		l.shares[i].end(t)
	}
}
