package admin

import (
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/proxy"
)

// metricsHandler serves all that is measured in the process, from a registry
// of its own: an embedder's default one stays his.
func metricsHandler(p *proxy.Proxy, log *zap.Logger) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	var errs []error
	for _, c := range []prometheus.Collector{
		p, p.Pools(), p.Tree().Collector(),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		errs = append(errs, registry.Register(c))
	}
	errorLog, err := zap.NewStdLogAt(log, zapcore.ErrorLevel)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: errorLog,
		// One collector at fault does not hide what the others say.
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      registry,
	}), nil
}
