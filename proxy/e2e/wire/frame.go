// Package wire speaks RFC 6455 byte by byte, with every liberty to break it:
// it shares no code with what it tests.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// The opcodes.
const (
	Continuation = 0x0
	Text         = 0x1
	Binary       = 0x2
	Close        = 0x8
	Ping         = 0x9
	Pong         = 0xA
)

// Frame is one frame on the wire.
type Frame struct {
	Op      byte
	Open    bool // FIN is not set
	RSV     byte // RSV1 is 4, RSV2 is 2, RSV3 is 1
	Payload []byte
	// Masked frames are what a client sends, with Key.
	Masked bool
	Key    [4]byte
	// Form forces a length form of 16 or 64 bits; Length declares another
	// length than the payload's. Zero means the right one.
	Form   int
	Length uint64
}

// Masks returns f as a client sends it.
func (f Frame) Masks() Frame {
	f.Masked, f.Key = true, [4]byte{0x1d, 0xf0, 0x9a, 0x33}
	return f
}

// Append appends f's bytes.
func (f Frame) Append(b []byte) []byte {
	first := f.RSV<<4 | f.Op
	if !f.Open {
		first |= 0x80
	}
	var mask byte
	if f.Masked {
		mask = 0x80
	}
	length := f.Length
	if length == 0 {
		length = uint64(len(f.Payload))
	}
	switch {
	case f.Form == 64 || f.Form == 0 && length > 65535:
		b = append(b, first, mask|127)
		b = binary.BigEndian.AppendUint64(b, length)
	case f.Form == 16 || length > 125:
		b = append(b, first, mask|126)
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b = append(b, first, mask|byte(length))
	}
	if !f.Masked {
		return append(b, f.Payload...)
	}
	b = append(b, f.Key[:]...)
	for i, p := range f.Payload {
		b = append(b, p^f.Key[i&3])
	}
	return b
}

// Read reads one frame and unmasks its payload.
func Read(r *bufio.Reader) (f Frame, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	f.Open, f.RSV, f.Op = head[0]&0x80 == 0, head[0]>>4&7, head[0]&0xf
	f.Masked = head[1]&0x80 != 0
	length := uint64(head[1] & 0x7f)
	var long [8]byte
	switch length {
	case 126:
		_, err = io.ReadFull(r, long[6:])
		length = binary.BigEndian.Uint64(long[:])
	case 127:
		_, err = io.ReadFull(r, long[:])
		length = binary.BigEndian.Uint64(long[:])
	}
	if err == nil && f.Masked {
		_, err = io.ReadFull(r, f.Key[:])
	}
	if err == nil && length > 1<<28 {
		err = fmt.Errorf("frame of %d bytes", length)
	}
	if err == nil {
		f.Payload = make([]byte, length)
		_, err = io.ReadFull(r, f.Payload)
	}
	if err != nil {
		return f, fmt.Errorf("inside a frame: %w", err)
	}
	if f.Masked {
		for i := range f.Payload {
			f.Payload[i] ^= f.Key[i&3]
		}
	}
	return f, nil
}

var names = map[byte]string{Continuation: "more", Text: "text", Binary: "binary", Close: "close", Ping: "ping", Pong: "pong"}

// String returns f as a line of a row.
func (f Frame) String() string {
	name, ok := names[f.Op]
	if !ok {
		name = fmt.Sprintf("opcode %d", f.Op)
	}
	if f.RSV != 0 {
		name += fmt.Sprintf(" rsv=%d", f.RSV)
	}
	if f.Open {
		name += " open"
	}
	if f.Op == Close && len(f.Payload) >= 2 {
		return fmt.Sprintf("%s %d %q", name, binary.BigEndian.Uint16(f.Payload), f.Payload[2:])
	}
	return name + " " + brief(f.Payload)
}

// brief returns data as it stands in a row: short text whole, the rest by
// its length and checksum.
func brief(data []byte) string {
	if len(data) > 200 {
		return fmt.Sprintf("(%d bytes, crc %08x)", len(data), checksum(data))
	}
	if utf8.Valid(data) {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("% x", data)
}

// ClosePayload returns the payload of a close frame; no code is 0.
func ClosePayload(code int, reason string) []byte {
	if code == 0 {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}
