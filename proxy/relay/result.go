package relay

import "github.com/stentproxy/stent/proxy/frame"

// Side is one end of a session.
type Side uint8

// The two sides. The zero value is the client.
const (
	Client Side = iota
	Upstream
)

// Other returns the opposite side.
func (s Side) Other() Side { return s ^ 1 }

// String returns "client" or "upstream", as in metrics and the admin API.
func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "upstream"
}

// Verdict is the kind of a Result.
type Verdict uint8

// The verdicts, a closed set. The zero value passes the message on.
const (
	OK Verdict = iota
	Drop
	Forward
	Reply
	Stop
)

// Result is what an Inspector says of one message.
type Result struct {
	Verdict Verdict
	// Type and Data are the message of Forward and Reply. Data is used
	// before the next call of the same inspector returns and not kept.
	Type frame.Opcode
	Data []byte
	// Code and Reason are the close frame of Stop; code 0 means 1000.
	Code   int
	Reason string
}
