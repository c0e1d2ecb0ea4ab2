package proxy

import (
	"context"
	"errors"
	"net/http"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/upstream"
)

// End is how a session ended.
type End = relay.End

// Who ended a session, as sessions_closed_total's label has it.
const (
	byClient   = "client"
	byUpstream = "upstream"
	byStent    = "stent"
)

// closeTable is the one table of how sessions end: what the client and the
// upstream get on the wire, by cause. Where a peer's own close frame, or a
// handler's stop, decides the client's code, it is 0 here.
//
// No code of our own making is 1000: phoenix.js 1.7 never comes back after
// it. None is 1005, 1006 or 1015, which are never on the wire (RFC 6455
// section 7.4.1), nor 1014, which several client libraries refuse.
var closeTable = relay.Table{
	relay.ClientClosed:     {Initiator: byClient},
	relay.ClientGone:       {Upstream: 1001, Initiator: byClient},
	relay.ClientProtocol:   {Client: 1002, Upstream: 1002, Reason: "protocol error", Initiator: byClient},
	relay.ClientSilent:     {Client: 1001, Upstream: 1001, Reason: "nothing heard", Initiator: byStent},
	relay.ClientStalled:    {Client: 1001, Upstream: 1001, Reason: "data not taken", Initiator: byStent},
	relay.UpstreamClosed:   {Initiator: byUpstream},
	relay.UpstreamLost:     {Client: 1012, Reason: "upstream lost", Initiator: byUpstream},
	relay.UpstreamProtocol: {Client: 1011, Upstream: 1002, Reason: "upstream broke the protocol", Initiator: byUpstream},
	relay.UpstreamTorn:     {Abort: true, Initiator: byUpstream},
	relay.ClientTorn:       {Client: 1012, Reason: "upstream lost inside a message", Initiator: byUpstream},
	relay.TooBig:           {Client: 1009, Upstream: 1001, Reason: "message too big", Initiator: byStent},
	relay.InvalidText:      {Client: 1007, Upstream: 1001, Reason: "text is not UTF-8", Initiator: byStent},
	relay.OverLimit:        {Client: 1008, Upstream: 1001, Reason: "rate limit", Initiator: byStent},
	relay.HandlerFailed:    {Client: 1011, Upstream: 1001, Reason: "internal error", Initiator: byStent},
	relay.HandlerStopped:   {Upstream: 1001, Initiator: byStent},
	relay.Kicked:           {Client: 1008, Upstream: 1001, Reason: "closed by the operator", Initiator: byStent},
	relay.Expired:          {Client: 1008, Upstream: 1001, Reason: "token expired", Initiator: byStent},
	relay.Idle:             {Client: 1001, Upstream: 1001, Reason: "idle", Initiator: byStent},
	relay.Lifetime:         {Client: 1001, Upstream: 1001, Reason: "lifetime over", Initiator: byStent},
	relay.Draining:         {Client: 1012, Upstream: 1001, Reason: "proxy is restarting", Initiator: byStent},
	relay.RedialRefused:    {Client: 1012, Reason: "upstream refused the session", Initiator: byUpstream},
	relay.GaveUp:           {Client: 1013, Reason: "no upstream, try again later", Initiator: byUpstream},
	relay.Shed:             {Client: 1013, Upstream: 1001, Reason: "proxy is short of memory", Initiator: byStent},
	relay.Failed:           {Client: 1011, Upstream: 1001, Reason: "internal error", Initiator: byStent},
}

// lossCause is the row for an upstream that is lost where there is no
// continuity.
func lossCause(l *relay.Loss) relay.Cause {
	switch l.Cause {
	case relay.LossProtocol:
		return relay.UpstreamProtocol
	case relay.LossPanic:
		return relay.Failed
	case relay.LossBroken, relay.LossClosed, relay.LossSilent, relay.LossStalled, relay.LossMoved:
	}
	return relay.UpstreamLost
}

// dialProblem is the answer to a client whose upstream could not be dialled.
// An upstream's own refusal is not among them: that goes to the client as it
// is.
func dialProblem(err error) *Problem {
	var own *Problem
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, upstream.ErrNoTarget), errors.Is(err, errNoPool):
		return unavailable("no upstream is available")
	case errors.Is(err, upstream.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return gatewayTimeout()
	default:
		return badGateway()
	}
}

// endProblem is the answer to a client whose session was ended while its
// upstream was being dialled, which failed with err for that.
func endProblem(cause relay.Cause, err error) error {
	switch cause {
	case relay.Expired:
		return plug.Revoked()
	case relay.Kicked:
		return &Problem{Status: http.StatusForbidden, Detail: "the session was closed by the operator"}
	case relay.Draining:
		return unavailable("the proxy or its backend is draining")
	case relay.Shed:
		return unavailable("the proxy is short of memory")
	}
	return err
}

// Refusal refuses a session at its opening with an HTTP status of the
// handler's choice. Its body is answered as text/plain.
type Refusal struct {
	Status int
	Header http.Header
	Body   string
}

// Error implements error.
func (r *Refusal) Error() string { return "session refused with " + http.StatusText(r.Status) }
