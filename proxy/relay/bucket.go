package relay

import "time"

// bucket is a token bucket that may go into debt: what is already here is
// let through whole, and the debt is worked off before the next. That keeps
// a long run's rate exact whatever the sizes.
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

// take removes n tokens.
func (b *bucket) take(t instant, n float64) {
	b.refill(t)
	b.tokens -= n
}

func (b *bucket) refill(t instant) {
	if t > b.last {
		b.tokens = min(b.burst, b.tokens+b.rate*time.Duration(t-b.last).Seconds())
		b.last = t
	}
}

// debt returns how long it takes until n tokens are there.
func (b *bucket) debt(t instant, n float64) time.Duration {
	b.refill(t)
	if b.tokens >= n {
		return 0
	}
	return time.Duration((n - b.tokens) / b.rate * float64(time.Second))
}

// limiter applies a Rate to a stream of messages.
type limiter struct {
	messages, bytes bucket
	onLimit         OnLimit
}

// newLimiter returns nil where there is nothing to limit.
func newLimiter(r Rate, t instant) *limiter {
	if r.Messages <= 0 && r.Bytes <= 0 {
		return nil
	}
	return &limiter{newBucket(r.Messages, r.Burst, t), newBucket(r.Bytes, r.Burst, t), r.OnLimit}
}

// wait returns how long the next message has to wait.
func (l *limiter) wait(t instant) time.Duration {
	var d time.Duration
	if l.messages.rate > 0 {
		d = l.messages.debt(t, 1)
	}
	if l.bytes.rate > 0 {
		d = max(d, l.bytes.debt(t, 0))
	}
	return d
}

// message takes one message's token; its bytes are taken as they come.
func (l *limiter) message(t instant) {
	if l.messages.rate > 0 {
		l.messages.take(t, 1)
	}
}

func (l *limiter) payload(t instant, n int64) {
	if l.bytes.rate > 0 {
		l.bytes.take(t, float64(n))
	}
}
