// Package frame is the WebSocket wire format (RFC 6455 section 5) without
// any I/O: headers, masking, the boundaries of frames and messages, and the
// assembly of messages. Two engines drive it; nothing in it blocks or grows.
package frame

// Event is what a Scanner found.
type Event uint8

// The events.
const (
	// More asks for more bytes: a header, or a whole control frame, is not
	// complete yet. Nothing was consumed.
	More Event = iota
	// Data is a piece of a message that goes on after it.
	Data
	// Final is the piece that ends a message.
	Final
	// Control is one whole control frame.
	Control
)

// Scanner finds the frame and message boundaries in one direction of a
// connection and refuses what RFC 6455 forbids. The zero value scans what a
// server sends, with no extension and no limit.
type Scanner struct {
	// Masked says that the frames come from a client and must be masked.
	Masked bool
	// Rsv is the set of reserved bits that extensions have claimed. Rsv1
	// alone is taken as permessage-deflate's: on a message's first frame
	// only (RFC 7692 section 6).
	Rsv uint8
	// Limit bounds a message's payload in bytes; 0 is no limit.
	Limit int64

	head      Header // of the frame that is being read, or was read last
	remaining int64  // of its payload
	size      int64  // of the message so far, the current frame whole
	kind      Opcode // of the current or last message
	open      bool   // a message is open
	deflated  bool   // the message's first frame had Rsv1
	first     bool   // the last event was a message's first
}

// Next consumes a prefix of b: one header with what is there of its payload,
// or a further piece of that payload, or a whole control frame. It returns
// what it found and the length of that prefix. An error is an *Error; it
// stands before the first byte of b, so that all before it may go on, and
// the scanner must not be used further.
func (s *Scanner) Next(b []byte) (Event, int, error) {
	s.first = false
	if len(b) == 0 {
		return More, 0, nil
	}
	if s.remaining > 0 {
		n := int(min(s.remaining, int64(len(b))))
		return s.payload(n), n, nil
	}
	h, n, err := ParseHeader(b)
	if err != nil {
		return More, 0, err
	}
	if err := s.check(h, len(b)); err != nil {
		return More, 0, err
	}
	if n == 0 {
		return More, 0, nil
	}
	if h.Opcode.Control() {
		whole := n + int(h.Length)
		if len(b) < whole {
			return More, 0, nil
		}
		s.head = h
		return Control, whole, nil
	}
	if h.Opcode == Continuation {
		if s.tooBig(s.size, h.Length) {
			return More, 0, ErrTooBig
		}
		s.size += h.Length
	} else {
		if s.tooBig(0, h.Length) {
			return More, 0, ErrTooBig
		}
		s.kind, s.open, s.size, s.first = h.Opcode, true, h.Length, true
		s.deflated = h.Rsv&Rsv1 != 0
	}
	s.head, s.remaining = h, h.Length
	rest := int(min(s.remaining, int64(len(b)-n)))
	return s.payload(rest), n + rest, nil
}

// check applies the rules that need more than the header itself. The first
// have bytes of it may be all there is.
func (s *Scanner) check(h Header, have int) error {
	allowed := s.Rsv
	if allowed == Rsv1 && (h.Opcode.Control() || h.Opcode == Continuation) {
		allowed = 0
	}
	switch {
	case h.Rsv&^allowed != 0:
		return errRsv
	case h.Opcode == Continuation && !s.open:
		return errContinuation
	case h.Opcode != Continuation && !h.Opcode.Control() && s.open:
		return errInterleaved
	case have >= 2 && s.Masked && !h.Masked:
		return errUnmasked
	case have >= 2 && !s.Masked && h.Masked:
		return errMasked
	}
	return nil
}

func (s *Scanner) tooBig(size, more int64) bool {
	return s.Limit > 0 && (more > s.Limit || size > s.Limit-more)
}

// payload consumes n bytes of the current data frame.
func (s *Scanner) payload(n int) Event {
	s.remaining -= int64(n)
	if s.remaining > 0 || !s.head.Fin {
		return Data
	}
	s.open = false
	return Final
}

// First reports whether the last event began a message.
func (s *Scanner) First() bool { return s.first }

// Header returns the header of the frame that the last event belongs to.
func (s *Scanner) Header() Header { return s.head }

// Type is the type of the current or last message: Text or Binary.
func (s *Scanner) Type() Opcode { return s.kind }

// AtFrame reports whether the next byte begins a frame.
func (s *Scanner) AtFrame() bool { return s.remaining == 0 }

// AtMessage reports whether the next byte begins a frame and no message is
// open.
func (s *Scanner) AtMessage() bool { return s.remaining == 0 && !s.open }

// Size is the payload of the current or last message that its headers have
// declared so far, in bytes.
func (s *Scanner) Size() int64 { return s.size }

// Arrived is how much of that payload has been consumed, in bytes.
func (s *Scanner) Arrived() int64 { return s.size - s.remaining }

// Deflated reports whether the current or last message was sent with Rsv1.
func (s *Scanner) Deflated() bool { return s.deflated }
