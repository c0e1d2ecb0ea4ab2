package upstream

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	dialsDesc = prometheus.NewDesc("stent_upstream_dials_total",
		"Dials of targets by how they ended.", []string{"upstream", "result"}, nil)
	targetUpDesc = prometheus.NewDesc("stent_upstream_target_up",
		"Whether new sessions go to the target.", []string{"upstream", "target"}, nil)
	targetSessionsDesc = prometheus.NewDesc("stent_upstream_target_sessions",
		"Sessions on the target.", []string{"upstream", "target"}, nil)
)

func newDialSeconds() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "stent_upstream_dial_seconds",
		Help:    "Time from connect to the answer of dials that were answered.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
}

// Describe implements prometheus.Collector.
func (p *Pools) Describe(ch chan<- *prometheus.Desc) {
	ch <- dialsDesc
	ch <- targetUpDesc
	ch <- targetSessionsDesc
	p.seconds.Describe(ch)
}

// Collect implements prometheus.Collector. Targets that have left are not
// shown any more; a removed pool is, while sessions are on it.
func (p *Pools) Collect(ch chan<- prometheus.Metric) {
	for _, pool := range p.all() {
		pool.collect(ch)
	}
	p.seconds.Collect(ch)
}

func (p *Pool) collect(ch chan<- prometheus.Metric) {
	info := p.info()
	p.mu.Lock()
	results := p.results
	p.mu.Unlock()
	for r, n := range results {
		ch <- prometheus.MustNewConstMetric(dialsDesc, prometheus.CounterValue, float64(n), p.name, resultNames[r])
	}
	seen := make(map[string]bool)
	for _, t := range info.Targets {
		if seen[t.Name] {
			continue // a new target that took the name of one still leaving
		}
		seen[t.Name] = true
		up := 0.0
		if t.State == Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(targetUpDesc, prometheus.GaugeValue, up, p.name, t.Name)
		ch <- prometheus.MustNewConstMetric(targetSessionsDesc, prometheus.GaugeValue, float64(t.Sessions), p.name, t.Name)
	}
}
