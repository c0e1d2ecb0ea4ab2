package proxy

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/plug"
)

// Door is the way in behind every listener: it says what is known of a
// request, and sees to it that whatever the plugs began for the request is
// ended, and that a panic ends that request alone.
type Door struct {
	// Table returns the routes in force.
	Table func() *Table
	Log   *zap.Logger
	// Refused is told of WebSocket handshakes that were answered with another
	// status than 101, and of long-poll clients that got no session, by
	// whomever; route is empty before routing. It may be
	// nil.
	Refused func(route string, status int)
	// Limited is told of requests that a limit has refused. It may be nil.
	Limited func(route, limit string)
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	table := d.Table()
	r, info := admit(r, trustedProxies(r), table.owned)
	answer := plug.Observe(w)
	answer.Info = info
	if d.Refused != nil && plug.AsksWebSocket(r) {
		defer d.refused(answer, r, info)
	}
	defer d.leave(answer, r, info)
	if closesAfter(r) { // whoever answers
		answer.Header().Set("Connection", "close")
	}
	table.ServeHTTP(answer, r)
	answer.Finish()
}

// statusClientClosed is nginx's status for a client that left before its
// answer; it is never on the wire.
const statusClientClosed = 499

func (d *Door) refused(answer *plug.Answer, r *http.Request, info *plug.Info) {
	switch {
	case answer.Hijacked:
	case answer.Status != 0:
		d.Refused(info.Route, answer.Status)
	case r.Context().Err() != nil:
		d.Refused(info.Route, statusClientClosed)
	}
}

// leave ends what a session has not taken over. It recovers a panic: the
// client gets a 500 where it has nothing yet, and a broken connection where it
// has a part of another answer.
func (d *Door) leave(answer *plug.Answer, r *http.Request, info *plug.Info) {
	reason := recover()
	if !info.Taken() {
		info.End()
	}
	if info.Refused != 0 && d.Refused != nil {
		d.Refused(info.Route, info.Refused)
	}
	if info.Limit != "" && d.Limited != nil {
		d.Limited(info.Route, info.Limit)
	}
	switch {
	case reason == nil:
		return
	case reason == http.ErrAbortHandler:
		// How a handler asks for a broken connection.
		panic(reason)
	}
	d.Log.Error("request panicked",
		zap.String("request_id", info.RequestID),
		zap.String("route", info.Route),
		zap.Any("panic", reason),
		zap.Stack("stack"))
	switch {
	case answer.Hijacked:
	case answer.Status != 0:
		panic(http.ErrAbortHandler)
	default:
		internalError().ServeHTTP(answer, r)
	}
}
