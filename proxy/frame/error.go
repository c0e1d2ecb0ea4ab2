package frame

import "fmt"

// Close codes that the package itself gives (RFC 6455 section 7.4.1).
const (
	CodeProtocol = 1002
	CodeInvalid  = 1007
	CodeTooBig   = 1009
)

// Error is a break of the protocol and the close code that answers it.
type Error struct {
	Code   int
	Reason string
}

// Error returns the reason, with its code.
func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Reason, e.Code) }

// The breaks of RFC 6455 that a stream can show.
var (
	errOpcode            = &Error{CodeProtocol, "reserved opcode"}
	errRsv               = &Error{CodeProtocol, "reserved bit without an extension"}
	errControlFragmented = &Error{CodeProtocol, "fragmented control frame"}
	errControlLong       = &Error{CodeProtocol, "control frame over 125 bytes"}
	errLengthForm        = &Error{CodeProtocol, "length not in its shortest form"}
	errLengthBit         = &Error{CodeProtocol, "length with its highest bit set"}
	errUnmasked          = &Error{CodeProtocol, "unmasked frame from a client"}
	errMasked            = &Error{CodeProtocol, "masked frame from a server"}
	errContinuation      = &Error{CodeProtocol, "continuation without a message"}
	errInterleaved       = &Error{CodeProtocol, "new message inside a message"}
	errCloseLength       = &Error{CodeProtocol, "close frame of one byte"}
	errCloseCode         = &Error{CodeProtocol, "close code not allowed on the wire"}

	// ErrTooBig is a message above the limit.
	ErrTooBig = &Error{CodeTooBig, "message too big"}
	// ErrUTF8 is text that is not UTF-8 (RFC 6455 section 8.1).
	ErrUTF8 = &Error{CodeInvalid, "text is not UTF-8"}
)
