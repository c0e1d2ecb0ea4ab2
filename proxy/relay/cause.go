package relay

import (
	"fmt"

	"github.com/stentproxy/stent/proxy/frame"
)

// Cause is why a session ended: a row of the close table.
type Cause uint8

// The causes, a closed set.
const (
	_                Cause = iota
	ClientClosed           // the client sent a close frame
	ClientGone             // the client's connection ended without one
	ClientProtocol         // the client broke RFC 6455
	ClientSilent           // nothing came within the keepalive
	ClientStalled          // the client took no data within timeouts.write
	UpstreamClosed         // the upstream sent a close frame that is final
	UpstreamLost           // the upstream's connection ended without one
	UpstreamProtocol       // the upstream broke RFC 6455
	UpstreamTorn           // the upstream was lost inside a message begun to the client
	ClientTorn             // the upstream was lost inside a client message begun to it
	TooBig                 // a message above message_size
	InvalidText            // text that is not UTF-8, or data that can't be inflated, where messages are assembled
	OverLimit              // a rate was passed and on_limit is close
	HandlerFailed          // a handler panicked
	HandlerStopped         // a handler said stop
	Kicked                 // the admin API or an embedder closed it
	Expired                // the token expired or was revoked
	Idle                   // no message within timeouts.idle
	Lifetime               // timeouts.lifetime passed
	Draining               // the proxy is ending
	RedialRefused          // no upstream takes the session back
	GaveUp                 // hold, restart budget or buffer is spent
	Shed                   // the process is short of memory
	Failed                 // stent itself failed
	causes
)

// Causes is the number of causes, for tables.
const Causes = int(causes)

var causeNames = [Causes]string{
	ClientClosed: "client closed", ClientGone: "client gone", ClientProtocol: "client broke the protocol",
	ClientSilent: "client silent", ClientStalled: "client takes no data",
	UpstreamClosed: "upstream closed", UpstreamLost: "upstream lost", UpstreamProtocol: "upstream broke the protocol",
	UpstreamTorn: "upstream lost inside a message to the client", ClientTorn: "upstream lost inside a client message",
	TooBig: "message too big", InvalidText: "message can't be read", OverLimit: "rate limit",
	HandlerFailed: "handler panicked", HandlerStopped: "handler stopped", Kicked: "kicked", Expired: "token expired",
	Idle: "idle", Lifetime: "lifetime over", Draining: "proxy is draining", RedialRefused: "upstream refused the session",
	GaveUp: "no upstream", Shed: "short of memory", Failed: "internal error",
}

// String returns the cause as logs write it.
func (c Cause) String() string {
	if int(c) < Causes && causeNames[c] != "" {
		return causeNames[c]
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// Rule is what a row of the close table does.
type Rule struct {
	// Client is the close code that the client gets, Upstream that of the
	// upstream; 0 sends none. Client codes of causes that carry their own
	// (a peer's close frame, a handler's stop) are 0 here.
	Client, Upstream int
	// Reason goes with Client.
	Reason string
	// Abort resets the client's connection: its stream can't be repaired.
	Abort bool
	// Initiator is who ended the session: "client", "upstream" or "stent".
	Initiator string
}

// Table is the close table, by cause.
type Table [Causes]Rule

// End is how a session ended.
type End struct {
	Cause Cause
	// Code and Reason are the close frame that the client got; frame.NoCode
	// stands for one without a body, 0 for none at all.
	Code   int
	Reason string
	// Err says more, where there is more to say.
	Err error
}

// Sends reports whether a close frame of our own may have the code: 1014 is
// left out of what RFC 6455 allows, since several client libraries refuse it.
func Sends(code int) bool { return frame.ValidCode(code) && code != 1014 }

// Loss is how one upstream was lost.
type Loss struct {
	Cause LossCause
	// Code is the upstream's close code where Cause is LossClosed.
	Code int
	echo []byte // the payload of that close frame
	Err  error
}

// LossCause is why an upstream was lost.
type LossCause uint8

// The causes of a Loss, a closed set.
const (
	LossBroken   LossCause = iota // its connection ended
	LossClosed                    // a close code that means "come back"
	LossProtocol                  // it broke RFC 6455
	LossSilent                    // nothing came within the keepalive
	LossStalled                   // it took no data within timeouts.write
	LossMoved                     // it was left on purpose
	LossPanic                     // the worker panicked
)

// String returns the cause as the metric restarts_total writes it.
func (c LossCause) String() string {
	switch c {
	case LossBroken:
		return "lost"
	case LossClosed:
		return "closed"
	case LossProtocol:
		return "protocol"
	case LossSilent:
		return "silent"
	case LossStalled:
		return "stalled"
	case LossMoved:
		return "moved"
	case LossPanic:
		return "panic"
	}
	return "unknown"
}

// Error makes a Loss the error with which a worker asks to be restarted.
func (l *Loss) Error() string {
	if l.Err != nil {
		return fmt.Sprintf("upstream %s: %v", l.Cause, l.Err)
	}
	if l.Cause == LossClosed {
		return fmt.Sprintf("upstream closed with %d", l.Code)
	}
	return "upstream " + l.Cause.String()
}

// Unwrap returns what lies behind the loss.
func (l *Loss) Unwrap() error { return l.Err }
