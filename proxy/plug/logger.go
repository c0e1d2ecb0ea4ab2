package plug

import (
	"net/http"
	"time"

	"github.com/stentproxy/stent/config"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger logs one line for each request that was answered over HTTP, refused
// handshakes among them. Sessions have lines of their own.
func logger(c *config.LoggerPlug, env Env) (Compiled, error) {
	level := zapcore.InfoLevel
	switch c.Level {
	case "":
	case "off":
		return Compiled{Wrap: func(next http.Handler) http.Handler { return next }}, nil
	default:
		var err error
		if level, err = zapcore.ParseLevel(c.Level); err != nil {
			return Compiled{}, config.Within("level", err)
		}
	}
	log := env.Log
	if log == nil {
		log = zap.NewNop()
	}
	wrap := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			answer := Observe(w)
			returned := false
			// Deferred, so that a request whose handler panics has its line too.
			defer func() {
				if answer.Hijacked {
					return
				}
				if line := log.Check(level, "request"); line != nil {
					line.Write(requestFields(r, answer, returned, time.Since(start))...)
				}
			}()
			next.ServeHTTP(answer, r)
			returned = true
		})
	}
	return Compiled{Wrap: wrap}, nil
}

// requestFields describes a request and its answer. The query stays out: it
// is where WebSocket clients carry their tokens.
func requestFields(r *http.Request, answer *Answer, returned bool, took time.Duration) []zap.Field {
	info := From(r)
	status := answer.Status
	if status == 0 && returned {
		status = http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	fields := []zap.Field{
		zap.String("request_id", info.RequestID),
		zap.String("method", r.Method),
		zap.String("host", r.Host),
		zap.String("path", r.URL.EscapedPath()),
		zap.String("route", info.Route),
		zap.Stringer("remote", info.ClientIP),
		zap.Int("status", status),
		zap.Int64("bytes", answer.Bytes),
		zap.Duration("took", took),
	}
	if !returned {
		fields = append(fields, zap.Bool("aborted", true))
	}
	return fields
}
