package supervisor

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	eventQueue = 256     // events waiting for the log
	maxStack   = 8 << 10 // bytes of a panic's stack; the culprit is near its top
	maxPanic   = 1 << 10 // bytes of a panic's value
)

// kind is the label of stent_supervisor_events_total.
type kind uint8

const (
	failed      kind = iota // a service returned and is to be served again
	panicked                // a service panicked and is to be served again
	backoff                 // a supervisor pauses its restarts
	resumed                 // a supervisor restarts again
	stopTimeout             // a service did not stop in time
	dropped                 // one of the above was counted but not logged
	kinds
)

var kindNames = [kinds]string{"failure", "panic", "backoff", "resume", "stop_timeout", "dropped"}

// event is what the log says of one suture event.
type event struct {
	kind       kind
	level      zapcore.Level
	supervisor string
	service    suture.Service // nil for backoff and resumed
	err        error          // of failed; nil when Serve returned nil
	panic      string         // of panicked
	stack      string
	restarting bool // at once, not after the supervisor's pause
}

// events counts what suture reports, on its loops, and logs it, on its own.
type events struct {
	log   *zap.Logger
	queue chan event
	total [kinds]atomic.Uint64
	desc  *prometheus.Desc
}

func newEvents(log *zap.Logger) *events {
	return &events{
		log:   log,
		queue: make(chan event, eventQueue),
		desc: prometheus.NewDesc("stent_supervisor_events_total",
			"What the supervision tree reported; dropped is what was counted but not logged.",
			[]string{"event"}, nil),
	}
}

// observe takes one event from suture. It runs on the supervisor's loop, on
// several at once, and neither blocks nor formats.
func (e *events) observe(from suture.Event) {
	var ev event
	switch from := from.(type) {
	case suture.EventServiceTerminate:
		ev = event{kind: failed, level: zap.WarnLevel, supervisor: from.SupervisorName,
			service: from.Service, restarting: from.Restarting}
		ev.err, _ = from.Err.(error)
		if _, ok := from.Service.(*session); ok {
			ev.level = zap.DebugLevel // the worker has logged what it means
		}
	case suture.EventServicePanic:
		ev = event{kind: panicked, level: zap.ErrorLevel, supervisor: from.SupervisorName,
			service: from.Service, panic: from.PanicMsg, restarting: from.Restarting}
		// Cloned, so that the queue doesn't hold suture's 64 KiB.
		ev.stack = strings.Clone(from.Stacktrace[:min(len(from.Stacktrace), maxStack)])
	case suture.EventBackoff:
		ev = event{kind: backoff, level: zap.WarnLevel, supervisor: from.SupervisorName}
	case suture.EventResume:
		ev = event{kind: resumed, level: zap.InfoLevel, supervisor: from.SupervisorName}
	case suture.EventStopTimeout:
		ev = event{kind: stopTimeout, level: zap.ErrorLevel, supervisor: from.SupervisorName, service: from.Service}
	default: // an event of a newer suture
		return
	}
	e.total[ev.kind].Add(1)
	if restarted, ok := ev.service.(interface{ restarted() }); ok && ev.kind != stopTimeout {
		restarted.restarted()
	}
	if e.log.Core().Enabled(ev.level) {
		e.offer(ev)
	}
}

// offer queues an event for the log or drops it. The second half of the queue
// is kept for what is worth a warning: failing sessions come in hordes.
func (e *events) offer(ev event) {
	if ev.level < zap.WarnLevel && len(e.queue) >= cap(e.queue)/2 {
		e.total[dropped].Add(1)
		return
	}
	select {
	case e.queue <- ev:
	default:
		e.total[dropped].Add(1)
	}
}

// Serve logs events until ctx ends.
func (e *events) Serve(ctx context.Context) error {
	reported := e.total[dropped].Load()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-e.queue:
			e.write(ev)
		}
		if lost := e.total[dropped].Load(); lost != reported && len(e.queue) == 0 {
			e.log.Warn("supervisor events not logged", zap.Uint64("dropped", lost-reported))
			reported = lost
		}
	}
}

func (e *events) String() string { return "event log" }

// flush logs what is left in the queue.
func (e *events) flush() {
	for {
		select {
		case ev := <-e.queue:
			e.write(ev)
		default:
			return
		}
	}
}

func (e *events) write(ev event) {
	fields := append(make([]zap.Field, 0, 5), zap.String("supervisor", ev.supervisor))
	if ev.service != nil {
		fields = append(fields, zap.String("service", nameOf(ev.service)))
	}
	var message string
	switch ev.kind {
	case failed:
		message = "service failed"
		fields = append(fields, zap.Error(ev.err), zap.Bool("restarting", ev.restarting))
	case panicked:
		message = "service panicked"
		fields = append(fields, zap.String("panic", ev.panic),
			zap.Bool("restarting", ev.restarting), zap.String("stack", ev.stack))
	case backoff:
		message = "supervisor pauses restarts"
	case resumed:
		message = "supervisor resumes restarts"
	case stopTimeout:
		message = "service did not stop in time"
	case dropped, kinds: // never queued
	}
	e.log.Log(ev.level, message, fields...)
}

// Describe implements prometheus.Collector.
func (e *events) Describe(ch chan<- *prometheus.Desc) { ch <- e.desc }

// Collect implements prometheus.Collector.
func (e *events) Collect(ch chan<- prometheus.Metric) {
	for k, name := range kindNames {
		ch <- prometheus.MustNewConstMetric(e.desc, prometheus.CounterValue, float64(e.total[k].Load()), name)
	}
}

// panicText is how suture formats the value of a panic: what was said, not
// the fields of what was thrown.
func panicText(v any) string {
	var text string
	switch v.(type) {
	case error, fmt.Stringer, string:
		text = fmt.Sprint(v) // survives a panic in the value's own methods
	default:
		text = fmt.Sprintf("%T", v)
	}
	return text[:min(len(text), maxPanic)]
}
