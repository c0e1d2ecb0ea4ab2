package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// roundTime is how long a round is meant to be where two targets take
	// turns; there are from minRounds to maxRounds of each.
	roundTime = time.Second
	minRounds = 2
	maxRounds = 10

	probeTimeout = 10 * time.Second
)

// ConfigError is a configuration that can't be run.
type ConfigError struct{ err error }

// Error says what is wrong.
func (e *ConfigError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *ConfigError) Unwrap() error { return e.err }

// Run runs what cfg says and reports what it measured. When ctx ends it
// stops, and reports what it has. An error is a *ConfigError, a target that
// takes no WebSocket, or one that is no echo server.
func Run(ctx context.Context, cfg Config) (Report, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return Report{}, &ConfigError{err}
	}
	m := newMessage(cfg.Size)
	dialers := make([]*dialer, len(cfg.Targets))
	processes := make([]watched, len(cfg.Targets))
	for i, t := range cfg.Targets {
		if dialers[i], err = newDialer(t.URL, cfg.Header, cfg.Insecure); err != nil {
			return Report{}, &ConfigError{err}
		}
		if processes[i], err = watch(t.PID); err != nil {
			return Report{}, &ConfigError{err}
		}
		if err := probe(ctx, dialers[i], m); err != nil {
			return Report{}, fmt.Errorf("%s: %w", t.URL, err)
		}
	}

	rounds := 1
	if len(cfg.Targets) > 1 && cfg.Mode != Idle { // memory that was used once stays
		rounds = min(max(int(cfg.Duration/roundTime), minRounds), maxRounds)
		cfg.Duration /= time.Duration(rounds)
		cfg.Warmup = min(cfg.Warmup, cfg.Duration/2)
	}
	results := make([][]result, len(cfg.Targets))
	for n := range rounds {
		for _, i := range turn(n, len(cfg.Targets)) {
			progress := func(phase Phase, elapsed, of time.Duration, count int64) {
				if cfg.Progress != nil {
					cfg.Progress(Progress{Target: i, Round: n + 1, Rounds: rounds, Phase: phase, Elapsed: elapsed, Duration: of, Count: count})
				}
			}
			res, err := newRound(cfg, dialers[i], m, processes[i], progress).run(ctx)
			if err != nil && ctx.Err() == nil {
				return Report{}, fmt.Errorf("%s: %w", cfg.Targets[i].URL, err)
			}
			if err == nil && (res.seconds > 0 || len(res.faults) > 0) { // which may have ended it in the warm-up
				results[i] = append(results[i], res)
			}
			if ctx.Err() != nil {
				return report(cfg, results, true), nil
			}
		}
	}
	return report(cfg, results, false), nil
}

// turn is who goes first in round n: what drifts, such as the machine's
// clock rate, then hits both alike.
func turn(n, targets int) []int {
	switch {
	case targets == 1:
		return []int{0}
	case n%2 == 0:
		return []int{0, 1}
	default:
		return []int{1, 0}
	}
}

// probe has one message echoed before there is any load.
func probe(ctx context.Context, d *dialer, m *message) error {
	conn, rest, err := d.dial(ctx)
	if err != nil {
		return err
	}
	c := newClient(conn, rest, m, ^uint32(0), 1)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := c.echo(0, probeTimeout); err != nil {
		return fmt.Errorf("the first echo: %w", errors.Join(err, ctx.Err()))
	}
	return c.goodbye()
}

// merge adds up the rounds of one target.
func merge(rounds []result) result {
	sum := result{echoes: newHistogram(), connect: newHistogram(), lag: newHistogram(), faults: map[string]int64{}}
	for _, r := range rounds {
		sum.seconds += r.seconds
		sum.count += r.count
		sum.cpu += r.cpu
		sum.own += r.own
		sum.memory += r.memory / float64(len(rounds))
		sum.alive, sum.opened = sum.alive+r.alive, sum.opened+r.opened
		for _, h := range []struct{ to, from *hdrhistogram.Histogram }{
			{sum.echoes, r.echoes}, {sum.connect, r.connect}, {sum.lag, r.lag},
		} {
			h.to.Merge(h.from)
		}
		for kind, n := range r.faults {
			sum.faults[kind] += n
		}
	}
	return sum
}
