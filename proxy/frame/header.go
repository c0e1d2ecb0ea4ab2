package frame

import "encoding/binary"

// MaxHeader is the longest frame header: two bytes, an eight-byte length
// and a masking key (RFC 6455 section 5.2).
const MaxHeader = 14

// MaxControl is the longest payload of a control frame (RFC 6455 section
// 5.5).
const MaxControl = 125

// The reserved bits as they stand in Header.Rsv.
const (
	Rsv1 uint8 = 1 << 6
	Rsv2 uint8 = 1 << 5
	Rsv3 uint8 = 1 << 4
)

const (
	finBit   = 1 << 7
	maskBit  = 1 << 7
	rsvBits  = Rsv1 | Rsv2 | Rsv3
	opBits   = 0x0f
	lenBits  = 0x7f
	len16    = 126
	len64    = 127
	maxLen16 = 1<<16 - 1
)

// Header is a frame header (RFC 6455 section 5.2).
type Header struct {
	Fin    bool
	Rsv    uint8 // a set of Rsv1, Rsv2 and Rsv3
	Opcode Opcode
	Masked bool
	Key    [4]byte // the masking key, when Masked
	Length int64   // of the payload, in bytes
}

// ParseHeader reads the header at the start of b and returns its length. A
// length of zero with a nil error asks for more bytes. What can be refused
// is refused as early as its bytes are there. Errors are *Error with code
// 1002.
func ParseHeader(b []byte) (h Header, n int, err error) {
	if len(b) < 1 {
		return h, 0, nil
	}
	h.Fin = b[0]&finBit != 0
	h.Rsv = b[0] & rsvBits
	h.Opcode = Opcode(b[0] & opBits)
	switch h.Opcode {
	case Continuation, Text, Binary:
	case Close, Ping, Pong:
		if !h.Fin {
			return h, 0, errControlFragmented
		}
	default:
		return h, 0, errOpcode
	}
	if len(b) < 2 {
		return h, 0, nil
	}
	h.Masked = b[1]&maskBit != 0
	length := b[1] & lenBits
	if h.Opcode.Control() && length > MaxControl {
		return h, 0, errControlLong
	}
	n = 2
	switch length {
	case len16:
		if len(b) < 4 {
			return h, 0, nil
		}
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
		if h.Length < len16 {
			return h, 0, errLengthForm
		}
		n = 4
	case len64:
		if len(b) < 10 {
			return h, 0, nil
		}
		v := binary.BigEndian.Uint64(b[2:])
		if v>>63 != 0 {
			return h, 0, errLengthBit
		}
		if v <= maxLen16 {
			return h, 0, errLengthForm
		}
		h.Length = int64(v)
		n = 10
	default:
		h.Length = int64(length)
	}
	if h.Masked {
		if len(b) < n+4 {
			return h, 0, nil
		}
		copy(h.Key[:], b[n:])
		n += 4
	}
	return h, n, nil
}

// AppendHeader appends h in its shortest form.
func AppendHeader(dst []byte, h Header) []byte {
	b0 := byte(h.Opcode) | h.Rsv
	if h.Fin {
		b0 |= finBit
	}
	var mask byte
	if h.Masked {
		mask = maskBit
	}
	switch {
	case h.Length < len16:
		dst = append(dst, b0, mask|byte(h.Length))
	case h.Length <= maxLen16:
		dst = append(dst, b0, mask|len16)
		dst = binary.BigEndian.AppendUint16(dst, uint16(h.Length))
	default:
		dst = append(dst, b0, mask|len64)
		dst = binary.BigEndian.AppendUint64(dst, uint64(h.Length))
	}
	if h.Masked {
		dst = append(dst, h.Key[:]...)
	}
	return dst
}

// AppendFrame appends a whole frame: h, with its Length set to that of
// payload, and the payload, masked when h says so.
func AppendFrame(dst []byte, h Header, payload []byte) []byte {
	h.Length = int64(len(payload))
	dst = AppendHeader(dst, h)
	at := len(dst)
	dst = append(dst, payload...)
	if h.Masked {
		Mask(h.Key, 0, dst[at:])
	}
	return dst
}
