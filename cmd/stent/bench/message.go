package bench

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/stentproxy/stent/proxy/frame"
)

// stampSize is how many bytes at a message's start tell it from all others:
// its connection and its number there. Shorter messages hold a part of it.
const stampSize = 8

// message is what all messages of a run have in common. It is not changed
// after it was made.
type message struct {
	plain  []byte // the payload; its first stampSize bytes are each message's own
	frame  []byte // header and masked payload
	header int    // bytes of the header
	key    [4]byte
}

// newMessage makes messages of size bytes. One key masks them all: RFC 6455
// section 5.3 wants it unpredictable to keep scripts from writing what they
// like to a wire, and here there is no script.
func newMessage(size int) *message {
	m := &message{plain: make([]byte, size)}
	rand.Read(m.key[:])
	for i := range m.plain {
		m.plain[i] = byte(i*7 + i>>8)
	}
	h := frame.Header{Fin: true, Opcode: frame.Binary, Masked: true, Key: m.key, Length: int64(size)}
	m.header = len(frame.AppendHeader(nil, h))
	m.frame = frame.AppendFrame(nil, h, m.plain)
	return m
}

// stamp says whose message it is and which.
func stamp(id, number uint32) (s [stampSize]byte) {
	binary.BigEndian.PutUint32(s[:], number)
	binary.BigEndian.PutUint32(s[4:], id)
	return s
}

// head is how many bytes of a frame are one message's own.
func (m *message) head() int { return m.header + min(stampSize, len(m.plain)) }

// appendHead appends a frame's header and the masked stamp; frame[head():]
// follows it on the wire.
func (m *message) appendHead(dst []byte, id, number uint32) []byte {
	dst = append(dst, m.frame[:m.header]...)
	s := stamp(id, number)
	own := s[:min(stampSize, len(m.plain))]
	at := len(dst)
	dst = append(dst, own...)
	frame.Mask(m.key, 0, dst[at:])
	return dst
}

// matches reports whether b is what stands at offset in a message.
func (m *message) matches(id, number uint32, offset int, b []byte) bool {
	if offset+len(b) > len(m.plain) {
		return false
	}
	if offset < stampSize {
		s := stamp(id, number)
		own := s[offset:min(stampSize, offset+len(b))]
		if string(own) != string(b[:len(own)]) {
			return false
		}
		offset += len(own)
		b = b[len(own):]
	}
	return string(b) == string(m.plain[offset:offset+len(b)])
}
