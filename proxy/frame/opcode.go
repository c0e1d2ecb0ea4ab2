package frame

// Opcode is a frame's opcode (RFC 6455 section 5.2).
type Opcode uint8

// The opcodes of RFC 6455 section 11.8.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xA
)

// Control reports whether o is a control opcode (RFC 6455 section 5.5).
func (o Opcode) Control() bool { return o&0x8 != 0 }

// String returns the opcode's name in lower case, as the admin API writes it.
func (o Opcode) String() string {
	switch o {
	case Continuation:
		return "continuation"
	case Text:
		return "text"
	case Binary:
		return "binary"
	case Close:
		return "close"
	case Ping:
		return "ping"
	case Pong:
		return "pong"
	}
	return "reserved"
}
