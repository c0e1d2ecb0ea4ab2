package bench

import (
	"slices"
)

// Report is what a run has measured. Times are in microseconds.
type Report struct {
	Mode        Mode           `json:"mode"`
	Connections int            `json:"connections"`
	Size        int            `json:"size"`
	InFlight    int            `json:"in_flight,omitempty"` // under echo and bulk
	Rate        float64        `json:"rate,omitempty"`      // asked for, under rate
	Interrupted bool           `json:"interrupted"`
	Targets     []TargetReport `json:"targets"`
	Ratio       *Comparison    `json:"ratio,omitempty"`
}

// TargetReport is what one target has done.
type TargetReport struct {
	URL     string  `json:"url"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // measured, all rounds together

	Messages          int64   `json:"messages"` // echoes that came in the measured time
	MessagesPerSecond float64 `json:"messages_per_second,omitempty"`
	BytesPerSecond    float64 `json:"bytes_per_second,omitempty"` // of payload, one way
	Sessions          int64   `json:"sessions"`                   // under churn
	SessionsPerSecond float64 `json:"sessions_per_second,omitempty"`
	Alive             int64   `json:"alive"` // under idle: connections that echo at the end
	Lost              int64   `json:"lost"`

	Latency *Latency `json:"latency_us,omitempty"` // of echoes; under churn of whole sessions
	Connect *Latency `json:"connect_us,omitempty"` // from connect to 101
	Lag     *Latency `json:"lag_us,omitempty"`     // under rate: how late the generator itself was; part of latency

	CPUPerMessage  *float64         `json:"cpu_us_per_message,omitempty"` // under churn per session; of the process named
	CPU            *float64         `json:"cpu,omitempty"`                // its cores in use
	MemoryPerConn  *float64         `json:"memory_per_connection,omitempty"`
	GeneratorCPU   float64          `json:"generator_cpu,omitempty"` // cores that the generator used
	Errors         int64            `json:"errors"`
	ErrorsByReason map[string]int64 `json:"errors_by_reason,omitempty"`
}

// Comparison is the first target's numbers over the second's.
type Comparison struct {
	PerSecond     *Ratio `json:"per_second,omitempty"` // messages, or sessions under churn
	P50           *Ratio `json:"p50,omitempty"`
	P99           *Ratio `json:"p99,omitempty"`
	CPUPerMessage *Ratio `json:"cpu_per_message,omitempty"`
	MemoryPerConn *Ratio `json:"memory_per_connection,omitempty"`
}

// Ratio is one number over the rounds: each round has its own ratio.
type Ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// report puts the rounds of all targets together.
func report(cfg Config, results [][]result, interrupted bool) Report {
	rep := Report{Mode: cfg.Mode, Connections: cfg.Connections, Size: cfg.Size, Interrupted: interrupted}
	switch cfg.Mode {
	case Echo, Bulk:
		rep.InFlight = cfg.InFlight
	case Rate:
		rep.Rate = cfg.Rate
	case Idle, Churn:
	}
	for i, t := range cfg.Targets {
		one := summary(cfg, merge(results[i]), t.PID > 0)
		one.URL, one.Rounds = t.URL, len(results[i])
		rep.Targets = append(rep.Targets, one)
	}
	if len(cfg.Targets) == 2 {
		rep.Ratio = compare(cfg, results[0], results[1])
	}
	return rep
}

// summary is one target's part, of one round or of several merged.
func summary(cfg Config, r result, process bool) TargetReport {
	t := TargetReport{
		Seconds: r.seconds, Latency: summarize(r.echoes), Connect: summarize(r.connect), Lag: summarize(r.lag), ErrorsByReason: r.faults,
	}
	for _, n := range r.faults {
		t.Errors += n
	}
	if r.seconds == 0 {
		return t
	}
	perSecond := float64(r.count) / r.seconds
	switch cfg.Mode {
	case Echo, Bulk, Rate:
		t.Messages, t.MessagesPerSecond, t.BytesPerSecond = r.count, perSecond, perSecond*float64(cfg.Size)
	case Churn:
		t.Sessions, t.SessionsPerSecond = r.count, perSecond
	case Idle:
		t.Alive, t.Lost = r.alive, r.opened-r.alive
	}
	t.GeneratorCPU = r.own / r.seconds
	if !process {
		return t
	}
	cores := r.cpu / r.seconds
	t.CPU = &cores
	if r.count > 0 {
		each := r.cpu * 1e6 / float64(r.count)
		t.CPUPerMessage = &each
	}
	if cfg.Mode == Idle {
		t.MemoryPerConn = &r.memory
	}
	return t
}

// compare takes the ratio of each pair of rounds. A number that is missing
// or zero in one has none.
func compare(cfg Config, a, b []result) *Comparison {
	var perSecond, p50, p99, cpu, memory []float64
	add := func(to *[]float64, a, b float64) {
		if a > 0 && b > 0 {
			*to = append(*to, a/b)
		}
	}
	for i := range min(len(a), len(b)) {
		x, y := summary(cfg, a[i], cfg.Targets[0].PID > 0), summary(cfg, b[i], cfg.Targets[1].PID > 0)
		if cfg.Mode != Rate { // which is given
			add(&perSecond, x.MessagesPerSecond+x.SessionsPerSecond, y.MessagesPerSecond+y.SessionsPerSecond)
		}
		if x.Latency != nil && y.Latency != nil {
			add(&p50, x.Latency.P50, y.Latency.P50)
			add(&p99, x.Latency.P99, y.Latency.P99)
		}
		if x.CPUPerMessage != nil && y.CPUPerMessage != nil {
			add(&cpu, *x.CPUPerMessage, *y.CPUPerMessage)
		}
		if x.MemoryPerConn != nil && y.MemoryPerConn != nil {
			add(&memory, *x.MemoryPerConn, *y.MemoryPerConn)
		}
	}
	return &Comparison{PerSecond: ratio(perSecond), P50: ratio(p50), P99: ratio(p99), CPUPerMessage: ratio(cpu), MemoryPerConn: ratio(memory)}
}

// ratio is nil where there is none.
func ratio(rounds []float64) *Ratio {
	if len(rounds) == 0 {
		return nil
	}
	slices.Sort(rounds)
	middle := len(rounds) / 2
	median := rounds[middle]
	if len(rounds)%2 == 0 {
		median = (median + rounds[middle-1]) / 2
	}
	return &Ratio{Median: median, Min: rounds[0], Max: rounds[len(rounds)-1]}
}
