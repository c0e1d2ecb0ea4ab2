package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/net/http/httpguts"

	"github.com/stentproxy/stent/cmd/stent/bench"
)

type benchCmd struct {
	URL         string        `arg:"" help:"A WebSocket that echoes: ws://host:port/path or wss://."`
	Mode        bench.Mode    `default:"echo" enum:"echo,rate,idle,churn,bulk" help:"echo: as many messages as come back; rate: a fixed rate, latency from the time a message was due; idle: open and quiet; churn: connect, one echo, close; bulk: echo with messages of 1 MiB (by default ${default})."`
	Connections int           `short:"n" default:"50" placeholder:"N" help:"Connections open at the same time (by default ${default})."`
	Size        string        `placeholder:"SIZE" help:"Size of a message, as 64 or 16KiB (by default 64, 1MiB for bulk)."`
	InFlight    int           `default:"1" placeholder:"N" help:"Messages of a connection that wait for their echo, for echo and bulk (by default ${default})."`
	Rate        float64       `default:"1000" placeholder:"N" help:"Messages a second over all connections, for rate (by default ${default})."`
	Duration    time.Duration `default:"10s" placeholder:"TIME" help:"How long to measure each target (by default ${default})."`
	Warmup      time.Duration `default:"1s" placeholder:"TIME" help:"How long to load it before (by default ${default})."`
	Compare     string        `placeholder:"URL" help:"A second target: both are measured by turns, and the ratio is printed."`
	CPU         []int         `name:"cpu" placeholder:"PID" help:"Local process of the target, and after a comma of the second one: its CPU and memory are measured (Linux)."`
	Header      []string      `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"Header of the handshakes; may be repeated."`
	Insecure    bool          `help:"Take any TLS certificate."`
	JSON        bool          `name:"json" help:"Print JSON."`
}

// Run measures until the time is over or a signal comes, and prints what was
// measured. What went wrong meanwhile makes it fail.
func (c benchCmd) Run(s streams) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	line := progressLine{w: s.err, targets: cfg.Targets}
	if isTerminal(s.err) {
		cfg.Progress = line.show
	}
	rep, err := bench.Run(ctx, cfg)
	line.clear()
	if _, ok := errors.AsType[*bench.ConfigError](err); ok {
		return usage("%w", err)
	}
	nothing := !slices.ContainsFunc(rep.Targets, func(t bench.TargetReport) bool { return t.Seconds > 0 })
	if ctx.Err() != nil && nothing {
		return errors.New("interrupted before anything was measured")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(s.out, rep)
	} else {
		err = printBench(s.out, rep)
	}
	if err != nil {
		return err
	}
	return benchErrors(rep)
}

// config is the run that the flags describe.
func (c benchCmd) config() (bench.Config, error) {
	cfg := bench.Config{
		Mode: c.Mode, Targets: []bench.Target{{URL: c.URL}}, Connections: c.Connections, InFlight: c.InFlight,
		Rate: c.Rate, Duration: c.Duration, Warmup: c.Warmup, Insecure: c.Insecure, Header: http.Header{},
	}
	if c.Compare != "" {
		cfg.Targets = append(cfg.Targets, bench.Target{URL: c.Compare})
	}
	if len(c.CPU) > len(cfg.Targets) {
		return cfg, usage("--cpu names %d processes for %d targets", len(c.CPU), len(cfg.Targets))
	}
	for i, pid := range c.CPU {
		cfg.Targets[i].PID = pid
	}
	if c.Size != "" {
		n, err := humanize.ParseBytes(c.Size)
		if err != nil || n == 0 || n > 1<<40 {
			return cfg, usage("--size: %q is no size of a message", c.Size)
		}
		cfg.Size = int(n)
	}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return cfg, usage("--header: a header is NAME:VALUE") // which may be a secret
		}
		cfg.Header.Add(name, value)
	}
	return cfg, nil
}

// progressLine rewrites one line of a terminal.
type progressLine struct {
	w       io.Writer
	targets []bench.Target
	shown   bool
}

func (l *progressLine) show(p bench.Progress) {
	l.shown = true
	text := string(p.Phase)
	if len(l.targets) > 1 {
		text = fmt.Sprintf("round %d of %d, %s: %s", p.Round, p.Rounds, l.targets[p.Target].URL, text)
	}
	text += " " + p.Elapsed.Truncate(100*time.Millisecond).String()
	if p.Duration > 0 {
		text += " of " + p.Duration.String()
	}
	if p.Count > 0 {
		text += ", " + humanize.Comma(p.Count)
	}
	fmt.Fprintf(l.w, "\r\x1b[K%s", text)
}

func (l *progressLine) clear() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

// printBench prints a column for each target and one for the ratio.
func printBench(w io.Writer, rep bench.Report) error {
	fmt.Fprintf(w, "%s: %s", rep.Mode, humanize.Comma(int64(rep.Connections))+" connections")
	switch rep.Mode {
	case bench.Echo, bench.Bulk:
		fmt.Fprintf(w, ", %s messages, %d in flight on each", humanize.IBytes(uint64(rep.Size)), rep.InFlight)
	case bench.Rate:
		fmt.Fprintf(w, ", %s messages, %s a second in all", humanize.IBytes(uint64(rep.Size)), humanize.Commaf(rep.Rate))
	case bench.Churn, bench.Idle:
	}
	if rep.Interrupted {
		fmt.Fprint(w, "; interrupted")
	}
	fmt.Fprint(w, "\n\n")

	header := []string{"target"}
	for _, t := range rep.Targets {
		header = append(header, t.URL)
	}
	ratio := rep.Ratio
	if ratio == nil {
		ratio = new(bench.Comparison)
	} else {
		header = append(header, "ratio (rounds)")
	}
	b := benchTable{table: newTable(w, header...), rep: rep}
	b.row("measured", nil, func(t bench.TargetReport) string { return seconds(t.Seconds) })
	switch rep.Mode { // a zero among these is a result
	case bench.Echo, bench.Rate, bench.Bulk:
		b.row("messages", nil, func(t bench.TargetReport) string { return humanize.Comma(t.Messages) })
		b.row("per second", ratio.PerSecond, func(t bench.TargetReport) string { return number(t.MessagesPerSecond) })
		b.row("payload, each way", nil, func(t bench.TargetReport) string { return humanize.IBytes(uint64(t.BytesPerSecond)) + "/s" })
	case bench.Churn:
		b.row("sessions", nil, func(t bench.TargetReport) string { return humanize.Comma(t.Sessions) })
		b.row("per second", ratio.PerSecond, func(t bench.TargetReport) string { return number(t.SessionsPerSecond) })
	case bench.Idle:
		b.row("alive", nil, func(t bench.TargetReport) string { return humanize.Comma(t.Alive) })
		b.row("lost", nil, func(t bench.TargetReport) string { return humanize.Comma(t.Lost) })
	}
	for _, q := range []struct {
		name  string
		ratio *bench.Ratio
		of    func(*bench.Latency) float64
	}{
		{"p50", ratio.P50, func(l *bench.Latency) float64 { return l.P50 }},
		{"p90", nil, func(l *bench.Latency) float64 { return l.P90 }},
		{"p99", ratio.P99, func(l *bench.Latency) float64 { return l.P99 }},
		{"p99.9", nil, func(l *bench.Latency) float64 { return l.P999 }},
		{"max", nil, func(l *bench.Latency) float64 { return l.Max }},
	} {
		b.row("latency "+q.name, q.ratio, func(t bench.TargetReport) string { return quantile(t.Latency, q.of) })
	}
	p99 := func(l *bench.Latency) float64 { return l.P99 }
	b.row("handshake p50", nil, func(t bench.TargetReport) string {
		return quantile(t.Connect, func(l *bench.Latency) float64 { return l.P50 })
	})
	b.row("handshake p99", nil, func(t bench.TargetReport) string { return quantile(t.Connect, p99) })
	each := "CPU per message"
	if rep.Mode == bench.Churn {
		each = "CPU per session"
	}
	b.row(each, ratio.CPUPerMessage, func(t bench.TargetReport) string {
		if t.CPUPerMessage == nil {
			return ""
		}
		return micros(*t.CPUPerMessage)
	})
	b.row("CPU, cores", nil, func(t bench.TargetReport) string {
		if t.CPU == nil {
			return ""
		}
		return strconv.FormatFloat(*t.CPU, 'f', 2, 64)
	})
	b.row("memory per connection", ratio.MemoryPerConn, func(t bench.TargetReport) string {
		if t.MemoryPerConn == nil {
			return ""
		}
		return humanize.IBytes(uint64(max(*t.MemoryPerConn, 0)))
	})
	b.row("generator's cores", nil, func(t bench.TargetReport) string {
		if t.GeneratorCPU == 0 {
			return ""
		}
		return strconv.FormatFloat(t.GeneratorCPU, 'f', 2, 64)
	})
	b.row("generator's lag p99", nil, func(t bench.TargetReport) string { return quantile(t.Lag, p99) })
	b.row("errors", nil, func(t bench.TargetReport) string { return humanize.Comma(t.Errors) })
	return b.flush()
}

// benchTable is a table with a column for each target.
type benchTable struct {
	*table
	rep bench.Report
}

// row adds a row unless no target has a value.
func (b benchTable) row(name string, ratio *bench.Ratio, value func(bench.TargetReport) string) {
	cells := []string{name}
	for _, t := range b.rep.Targets {
		cells = append(cells, value(t))
	}
	if !slices.ContainsFunc(cells[1:], func(s string) bool { return s != "" }) {
		return
	}
	if ratio != nil {
		cells = append(cells, fmt.Sprintf("%.2f (%.2f–%.2f)", ratio.Median, ratio.Min, ratio.Max))
	}
	b.table.row(cells...)
}

// number shows a small one with its hundredths.
func number(x float64) string {
	if x < 100 {
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return humanize.Comma(int64(x))
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) + " s" }

// micros shows a time in the unit that suits it.
func micros(x float64) string {
	switch {
	case x < 1e3:
		return strconv.FormatFloat(x, 'f', 1, 64) + " µs"
	case x < 1e6:
		return strconv.FormatFloat(x/1e3, 'f', 2, 64) + " ms"
	default:
		return strconv.FormatFloat(x/1e6, 'f', 2, 64) + " s"
	}
}

func quantile(l *bench.Latency, of func(*bench.Latency) float64) string {
	if l == nil {
		return ""
	}
	return micros(of(l))
}

// benchErrors is what went wrong under load, nil where nothing did.
func benchErrors(rep bench.Report) error {
	var lines []string
	for _, t := range rep.Targets {
		for reason, n := range t.ErrorsByReason {
			lines = append(lines, fmt.Sprintf("%s: %s × %s", t.URL, humanize.Comma(n), printable(reason)))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return errors.New(strings.Join(lines, "\nstent: "))
}
