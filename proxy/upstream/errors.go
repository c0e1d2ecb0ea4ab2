package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

var (
	// ErrNoTarget means that no target may be picked: all are down, ejected,
	// draining or full, or there are none. A client gets 503.
	ErrNoTarget = errors.New("no target available")
	// ErrTimeout means that a target did not answer within dial.timeout. A
	// client gets 504.
	ErrTimeout = errors.New("dial timed out")
	// ErrUnreachable means that every target tried refused the connection or
	// answered nonsense. A client gets 502.
	ErrUnreachable = errors.New("no target could be reached")
	// ErrUnsuitable means that a target's 101 was refused by Handshake.Check, or
	// agrees to what was not offered.
	ErrUnsuitable = errors.New("negotiation does not suit the session")
	// ErrUnknown means that a pool or target of that name does not exist.
	ErrUnknown = errors.New("unknown")
)

// Refused is a well-formed answer other than 101: it belongs to the client.
// The body is streamed; each read of it is bounded by dial.timeout, and
// whoever gets a Refused closes it, which closes the connection.
type Refused struct {
	Target   *Target
	Response *http.Response
}

func (e *Refused) Error() string {
	return fmt.Sprintf("target %s answered %s", e.Target.Name(), e.Response.Status)
}

// Passing reports whether the same target may answer otherwise later. What is
// wrong with the request will still be wrong then (RFC 9110 section 15.5).
func (e *Refused) Passing() bool {
	code := e.Response.StatusCode
	return code < 400 || code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooManyRequests
}

// BadAnswer is an answer that is not a WebSocket server's: not HTTP, or a
// 101 that breaks RFC 6455 section 4.1.
type BadAnswer struct {
	Reason string
	// Err is the cause, where there is one.
	Err error
}

func (e *BadAnswer) Error() string {
	if e.Err != nil {
		return e.Reason + ": " + e.Err.Error()
	}
	return e.Reason
}

func (e *BadAnswer) Unwrap() error { return e.Err }

// Attempt is one failed dial of one target.
type Attempt struct {
	Target *Target
	Err    error
}

// DialError says why each target that was tried did not do. It is
// ErrTimeout when any of them timed out, and ErrUnreachable otherwise.
type DialError struct {
	Pool     string
	Attempts []Attempt
}

func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial upstream %s", e.Pool)
	for i, a := range e.Attempts {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s: %v", sep, a.Target.Name(), a.Err)
	}
	return b.String()
}

// Unwrap returns the attempts' errors.
func (e *DialError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// Is makes a DialError ErrUnreachable when no attempt timed out.
func (e *DialError) Is(target error) bool {
	if target != ErrUnreachable {
		return false
	}
	for _, a := range e.Attempts {
		if errors.Is(a.Err, ErrTimeout) {
			return false
		}
	}
	return true
}
