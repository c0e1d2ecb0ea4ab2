package proxy

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// metrics are the contract's, as far as sessions are their subject. What is
// counted for every message is summed up at each scrape from the sessions'
// own counters, so that no message pays for it.
type metrics struct {
	closed    *prometheus.CounterVec
	duration  prometheus.Histogram
	refusals  *prometheus.CounterVec
	limited   *prometheus.CounterVec // requests; messages are summed up at each scrape
	restarts  *prometheus.CounterVec
	results   *prometheus.CounterVec
	handlerS  prometheus.Histogram
	reloads   *prometheus.CounterVec
	snapshots atomic.Uint64 // put into force so far: the number of the current one

	heldSeconds prometheus.Histogram

	channelJoins  *prometheus.CounterVec
	channelErrors *prometheus.CounterVec
	channelEvents *prometheus.CounterVec

	mu     sync.Mutex
	routes map[string]*routeCount
}

// secondsBuckets fit sessions: from a page that was left at once to one
// that stays open for days.
var secondsBuckets = []float64{.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "stent_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "stent_" + name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		closed:      counter("sessions_closed_total", "Sessions that ended, by the close code the client got and who ended them.", "route", "code", "initiator"),
		duration:    histogram("session_duration_seconds", "How long sessions lasted.", secondsBuckets),
		refusals:    counter("handshakes_refused_total", "Handshakes that became no session, by HTTP status.", "route", "status"),
		limited:     counter("limited_total", limitedHelp, "route", "limit"),
		restarts:    counter("restarts_total", "Upstreams lost by sessions that went on, by reason.", "route", "reason"),
		results:     counter("handler_results_total", "What handlers said of messages.", "route", "handler", "result"),
		handlerS:    histogram("handler_seconds", "How long handlers took for a message.", []float64{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, .1, 1}),
		reloads:     counter("config_reloads_total", "Configurations that were loaded into the running process, by result.", "result"),
		heldSeconds: histogram("held_seconds", "How long clients were held without an upstream.", []float64{.01, .05, .1, .5, 1, 2, 5, 10, 30, 60}),
		routes:      make(map[string]*routeCount),

		channelJoins:  counter("channel_joins_total", "Joins of Phoenix topics, by result.", "route", "topic", "result"),
		channelErrors: counter("channel_errors_total", "Phoenix channels that clients were told to be in error, by who said so.", "route", "topic", "from"),
		channelEvents: counter("channel_events_total", "Messages on Phoenix channels, by sender and event.", "route", "from", "event"),
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result) // there before the first reload, at 0
	}
	return m
}

// The results of config_reloads_total.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
)

// routeCount counts for one route, by its pattern, over all snapshots.
type routeCount struct {
	pattern string
	metrics *metrics
	states  [4]atomic.Int64
	total   atomic.Uint64
	tooBig  atomic.Uint64 // sessions that message_size ended
	size    [2]relay.Sizes

	channels *channelCount

	past tally // of sessions that have ended; guarded by the registry
}

// tally is what the Links of sessions have counted.
type tally struct {
	messages [2][2]uint64 // by Side, then text and binary
	bytes    [2]uint64    // by Side
	limited  uint64
}

func (t *tally) add(l *relay.Link) {
	for side := range l.Counters {
		k := &l.Counters[side]
		t.messages[side][0] += k.Text.Load()
		t.messages[side][1] += k.Binary.Load()
		t.bytes[side] += k.Bytes.Load()
	}
	t.limited += l.Counters[Client].Limited.Load()
}

func (m *metrics) route(pattern string) *routeCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.routes[pattern]
	if !ok {
		c = &routeCount{pattern: pattern, metrics: m, channels: newChannelCount(pattern, m)}
		m.routes[pattern] = c
	}
	return c
}

func (c *routeCount) opening()             { c.states[Connecting].Add(1) }
func (c *routeCount) opened()              { c.total.Add(1) }
func (c *routeCount) gone()                { c.states[Closing].Add(-1) }
func (c *routeCount) moved(from, to State) { c.states[from].Add(-1); c.states[to].Add(1) }
func (c *routeCount) sizes() [2]*relay.Sizes {
	return [2]*relay.Sizes{&c.size[Client], &c.size[Upstream]}
}

func (m *metrics) refused(route string, status int) {
	m.refusals.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

func (m *metrics) limit(route, limit string) {
	m.limited.WithLabelValues(route, limit).Inc()
}

func (c *routeCount) restarted(reason string) {
	c.metrics.restarts.WithLabelValues(c.pattern, reason).Inc()
}

func (c *routeCount) closed(end End, initiator string, d time.Duration) {
	code := "none"
	if end.Code != 0 && end.Code != frame.NoCode {
		code = strconv.Itoa(end.Code)
	}
	c.metrics.closed.WithLabelValues(c.pattern, code, initiator).Inc()
	c.metrics.duration.Observe(d.Seconds())
	if end.Cause == relay.TooBig {
		c.tooBig.Add(1)
	}
}

// handlerCount counts for one handler of one route.
type handlerCount struct {
	results [5]prometheus.Counter // by relay.Verdict
	seconds prometheus.Histogram
}

var verdictNames = [...]string{relay.OK: "ok", relay.Drop: "drop", relay.Forward: "forward", relay.Reply: "reply", relay.Stop: "stop"}

func (m *metrics) handler(route, name string) *handlerCount {
	c := &handlerCount{seconds: m.handlerS}
	for v, result := range verdictNames {
		c.results[v] = m.results.WithLabelValues(route, name, result)
	}
	return c
}

func (c *handlerCount) observe(v relay.Verdict, d time.Duration) {
	c.results[v].Inc()
	c.seconds.Observe(d.Seconds())
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("stent_"+name, help, labels, nil)
}

const limitedHelp = "What a limit slowed, dropped or refused: messages (rate, message_size), and requests."

var (
	descSessions  = desc("sessions", "Sessions by state.", "route", "state")
	descOpened    = desc("sessions_opened_total", "Sessions whose client was answered 101.", "route")
	descHeld      = desc("held_sessions", "Sessions whose client waits for an upstream.", "route")
	descMessages  = desc("messages_total", "Messages by sender and type.", "route", "from", "type")
	descBytes     = desc("message_bytes_total", "Payload of messages as on the wire.", "route", "from")
	descSize      = desc("message_size_bytes", "Payload of messages, as on the wire.")
	descLimited   = desc("limited_total", limitedHelp, "route", "limit")
	descSnapshots = desc("config_snapshots", "Compiled configurations in use: the one in force, and older ones that sessions opened with.")
	descStalls    = desc("loop_stalls_total", "Rounds of the event loops that took longer than 20 ms.")
	descStalled   = desc("loop_stalled_seconds_total", "How long those rounds took.")
	descBuild     = desc("build_info", "The running build.", "version", "goversion")
)

// Describe implements prometheus.Collector.
func (p *Proxy) Describe(ch chan<- *prometheus.Desc) {
	p.metrics.each(func(c prometheus.Collector) { c.Describe(ch) })
	for _, d := range []*prometheus.Desc{descSessions, descOpened, descHeld, descMessages, descBytes, descSize, descLimited, descSnapshots, descStalls, descStalled, descBuild} {
		ch <- d
	}
}

func (m *metrics) each(f func(prometheus.Collector)) {
	for _, c := range []prometheus.Collector{m.closed, m.duration, m.refusals, m.limited, m.restarts, m.results, m.handlerS, m.reloads, m.heldSeconds, m.channelJoins, m.channelErrors, m.channelEvents} {
		f(c)
	}
}

// Collect implements prometheus.Collector.
func (p *Proxy) Collect(ch chan<- prometheus.Metric) {
	p.metrics.each(func(c prometheus.Collector) { c.Collect(ch) })
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	var sizes sizeSum
	routes, snapshots := p.totals()
	for _, t := range routes {
		for state := Connecting; state <= Closing; state++ {
			gauge(descSessions, float64(t.count.states[state].Load()), t.count.pattern, state.String())
		}
		gauge(descHeld, float64(t.count.states[HeldState].Load()), t.count.pattern)
		counter(descOpened, float64(t.count.total.Load()), t.count.pattern)
		for _, side := range []Side{Client, Upstream} {
			counter(descMessages, float64(t.messages[side][0]), t.count.pattern, side.String(), Text.String())
			counter(descMessages, float64(t.messages[side][1]), t.count.pattern, side.String(), Binary.String())
			counter(descBytes, float64(t.bytes[side]), t.count.pattern, side.String())
			sizes.add(&t.count.size[side])
		}
		counter(descLimited, float64(t.limited), t.count.pattern, "rate")
		counter(descLimited, float64(t.count.tooBig.Load()), t.count.pattern, "message_size")
	}
	ch <- sizes.metric()
	gauge(descSnapshots, float64(snapshots))
	stalls, stalled := p.loops.Stalls()
	counter(descStalls, float64(stalls))
	counter(descStalled, stalled.Seconds())
	gauge(descBuild, 1, cmp.Or(p.options.Version, moduleVersion()), runtime.Version())
}

// sizeSum adds up the message sizes of all routes.
type sizeSum struct {
	buckets [len(relay.SizeBounds) + 1]uint64
	bytes   uint64
}

func (t *sizeSum) add(s *relay.Sizes) {
	for i := range s.Buckets {
		t.buckets[i] += s.Buckets[i].Load()
	}
	t.bytes += s.Sum.Load()
}

func (t *sizeSum) metric() prometheus.Metric {
	cumulative := make(map[float64]uint64, len(relay.SizeBounds))
	var n uint64
	for i, bound := range relay.SizeBounds {
		n += t.buckets[i]
		cumulative[float64(bound)] = n
	}
	n += t.buckets[len(relay.SizeBounds)]
	return prometheus.MustNewConstHistogram(descSize, n, float64(t.bytes), cumulative)
}

// total is a route's counts with those of its living sessions.
type total struct {
	count *routeCount
	tally
}

// totals returns the total of every route and the number of snapshots in
// use.
func (p *Proxy) totals() (all map[*routeCount]*total, snapshots int) {
	all = make(map[*routeCount]*total)
	inUse := map[uint64]bool{p.metrics.snapshots.Load(): true}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.metrics.mu.Lock()
	for _, c := range p.metrics.routes {
		all[c] = &total{count: c, tally: c.past}
	}
	p.metrics.mu.Unlock()
	for _, s := range p.registry.sessions {
		all[s.route.count].add(s.link)
		inUse[s.route.generation] = true
	}
	return all, len(inUse)
}

// moduleVersion is the main module's as the Go tool has stamped it.
func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// openedTotal is how many sessions all routes have opened.
func (m *metrics) openedTotal() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var n uint64
	for _, c := range m.routes {
		n += c.total.Load()
	}
	return n
}
