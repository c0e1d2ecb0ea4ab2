package bench

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"time"
)

// Mode is what the connections do.
type Mode string

// The modes.
const (
	Echo  Mode = "echo"  // as many messages as come back
	Rate  Mode = "rate"  // a fixed rate, whatever comes back
	Idle  Mode = "idle"  // nothing, for as long as it lasts
	Churn Mode = "churn" // connect, one echo, close, and again
	Bulk  Mode = "bulk"  // echo with large messages
)

// Target is one server under load.
type Target struct {
	URL string
	// PID is the local process whose CPU and memory are reported, its
	// descendants included. Zero is none.
	PID int
}

// Config describes one run.
type Config struct {
	Mode        Mode
	Targets     []Target // one, or two to compare
	Connections int      // open at the same time; under churn, being opened and closed
	Size        int      // of a message, in bytes; zero is 64, and 1 MiB under bulk
	InFlight    int      // messages per connection that wait for their echo
	Rate        float64  // messages per second over all connections, under rate
	Duration    time.Duration
	Warmup      time.Duration // before the measured time, in each round
	Header      http.Header
	Insecure    bool // any certificate will do

	// Progress, where set, is called a few times a second, never by two
	// goroutines at once.
	Progress func(Progress)

	patience time.Duration // with what is due at the end; zero is drainTimeout
	hurry    time.Duration // the same where the run is interrupted; zero is interruptedTimeout
}

// Progress is what a run has come to.
type Progress struct {
	Target   int // being measured, an index of Config.Targets
	Round    int // from 1
	Rounds   int // of each target
	Phase    Phase
	Elapsed  time.Duration // of the phase
	Duration time.Duration // of the phase, zero where that is open
	Count    int64         // connections up while connecting, then messages; sessions under churn
}

// Phase is a part of a round.
type Phase string

// The phases of a round.
const (
	Connecting Phase = "connecting"
	Warming    Phase = "warming up"
	Measuring  Phase = "measuring"
)

// The bounds of a run, and what stands for a zero.
const (
	maxConnections = 1 << 20
	maxSize        = 64 << 20
	maxInFlight    = 1 << 12
	maxRate        = 1e7

	defaultSize = 64
	bulkSize    = 1 << 20
)

// complete checks a configuration and fills in what is left to the mode.
func (c Config) complete() (Config, error) {
	switch c.Mode {
	case Echo, Rate, Idle, Churn, Bulk:
	default:
		return c, fmt.Errorf("no mode %q: echo, rate, idle, churn or bulk", c.Mode)
	}
	if c.Size == 0 {
		c.Size = defaultSize
		if c.Mode == Bulk {
			c.Size = bulkSize
		}
	}
	if c.patience == 0 {
		c.patience = drainTimeout
	}
	if c.hurry == 0 {
		c.hurry = interruptedTimeout
	}
	switch {
	case len(c.Targets) < 1 || len(c.Targets) > 2:
		return c, fmt.Errorf("%d targets: it takes one, or two to compare", len(c.Targets))
	case c.Connections < 1 || c.Connections > maxConnections:
		return c, fmt.Errorf("%d connections: from 1 to %d", c.Connections, maxConnections)
	case c.Size < 1 || c.Size > maxSize:
		return c, fmt.Errorf("messages of %d bytes: from 1 to %d", c.Size, maxSize)
	case c.InFlight < 1 || c.InFlight > maxInFlight:
		return c, fmt.Errorf("%d messages in flight: from 1 to %d", c.InFlight, maxInFlight)
	case c.Mode == Rate && !(c.Rate > 0 && c.Rate <= maxRate):
		return c, fmt.Errorf("a rate of %g: above 0, at most %g", c.Rate, maxRate)
	case c.Duration <= 0:
		return c, fmt.Errorf("a duration of %s: above 0", c.Duration)
	case c.Warmup < 0:
		return c, fmt.Errorf("a warm-up of %s: at least 0", c.Warmup)
	}
	for _, t := range c.Targets {
		if _, err := parseURL(t.URL); err != nil {
			return c, err
		}
		if t.PID < 0 {
			return c, fmt.Errorf("no process %d", t.PID)
		}
		if t.PID > 0 && !canWatch {
			return c, fmt.Errorf("the CPU of a process is read from /proc, which %s has not", runtime.GOOS)
		}
	}
	return c, nil
}

// parseURL takes a target's address; http and https stand for ws and wss.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("the target's address: %w", err)
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return nil, fmt.Errorf("%q is no target: it takes ws://host:port/path or wss://", raw)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%q is no target: it has no host", raw)
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("%q is no target: RFC 6455 has no fragments", raw)
	}
	return u, nil
}
