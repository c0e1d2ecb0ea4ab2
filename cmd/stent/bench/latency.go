package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A latency is recorded in nanoseconds, to three digits.
const (
	maxLatency = int64(time.Hour)
	digits     = 3
	shards     = 8
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, digits) }

// record adds one latency.
func record(h *hdrhistogram.Histogram, ns int64) {
	h.RecordValue(min(max(ns, 0), maxLatency)) // within the bounds it can't fail
}

// recorder counts what the connections measure, each in the shard of its id.
type recorder struct {
	shards [shards]shard
}

type shard struct {
	mu    sync.Mutex
	h     *hdrhistogram.Histogram
	count int64 // echoes within the measured time
	_     [64]byte
}

func newRecorder() *recorder {
	r := new(recorder)
	for i := range r.shards {
		r.shards[i].h = newHistogram()
	}
	return r
}

// total merges the shards.
func (r *recorder) total() (h *hdrhistogram.Histogram, count int64) {
	h = newHistogram()
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		h.Merge(s.h)
		count += s.count
		s.mu.Unlock()
	}
	return h, count
}

// count is the total without the histogram.
func (r *recorder) count() (n int64) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += s.count
		s.mu.Unlock()
	}
	return n
}

// Latency is a distribution of times, in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// summarize is nil for an empty histogram.
func summarize(h *hdrhistogram.Histogram) *Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	µs := func(ns int64) float64 { return float64(ns) / 1e3 }
	return &Latency{
		Count: h.TotalCount(), Min: µs(h.Min()), Mean: h.Mean() / 1e3,
		P50: µs(h.ValueAtQuantile(50)), P90: µs(h.ValueAtQuantile(90)), P99: µs(h.ValueAtQuantile(99)),
		P999: µs(h.ValueAtQuantile(99.9)), Max: µs(h.Max()),
	}
}
