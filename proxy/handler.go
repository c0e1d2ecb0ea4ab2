package proxy

import (
	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// Side is one end of a session: the client or the upstream.
type Side = relay.Side

// The two sides.
const (
	Client   = relay.Client
	Upstream = relay.Upstream
)

// Type is the type of a message (RFC 6455 section 5.6).
type Type = frame.Opcode

// The two types of message.
const (
	Text   = frame.Text
	Binary = frame.Binary
)

// Message is one whole message on its way through a session.
type Message struct {
	From Side
	Type Type
	// Data is valid until the callback returns. Text is valid UTF-8.
	Data []byte
}

// Result is what a Handler says of a message. The zero value is OK.
type Result = relay.Result

// OK passes the message on unchanged.
func OK() Result { return Result{} }

// Drop keeps the message from going further; nothing is answered.
func Drop() Result { return Result{Verdict: relay.Drop} }

// Forward passes other contents on in the message's place.
func Forward(t Type, data []byte) Result {
	return Result{Verdict: relay.Forward, Type: t, Data: data}
}

// ReplyText answers the message's sender with a text frame; the message
// goes no further.
func ReplyText(s string) Result {
	return Result{Verdict: relay.Reply, Type: Text, Data: []byte(s)}
}

// ReplyBinary answers the message's sender with a binary frame; the message
// goes no further.
func ReplyBinary(b []byte) Result {
	return Result{Verdict: relay.Reply, Type: Binary, Data: b}
}

// Stop ends the session: the client gets a close frame with code (0 means
// 1000) and reason (cut to 123 bytes), the upstream 1001.
func Stop(code int, reason string) Result {
	return Result{Verdict: relay.Stop, Code: code, Reason: reason}
}

// Handler looks at the messages of one session. Its methods, and those of
// the optional interfaces below, are called one at a time for a session, as
// the callbacks of a process are. A panic in any of them closes that session
// with 1011 and touches nothing else.
type Handler interface {
	Message(s *Session, m Message) Result
}

// Opener is a Handler that is told when its session opens, before the
// upstream is dialled. An error refuses the session: a *Refusal with its own
// status, any other with 500.
type Opener interface {
	Open(s *Session) error
}

// UpstreamWatcher is a Handler that is told when its session loses its
// upstream and when it has one again.
type UpstreamWatcher interface {
	UpstreamDown(s *Session, cause error)
	// UpstreamUp is called with the attempt number that the upstream sees as
	// Stent-Attempt; 1 is the first upstream of the session.
	UpstreamUp(s *Session, attempt int)
}

// Closer is a Handler that is told, last of all, how its session ended. One
// whose Open was called without an error is always told, also where the
// client was refused later.
type Closer interface {
	Close(s *Session, end End)
}

// Inliner is a Handler that says whether its Message returns without
// blocking, so that it may run on an event loop. Handlers that do not
// implement it are taken to block.
type Inliner interface {
	Inline() bool
}

// NewHandler compiles a handler's configuration, once for each route, and
// returns the function that makes one Handler for each session. Config is
// *config.RulesHandler for rules and the plain YAML value for others.
type NewHandler func(config any) (func() Handler, error)
