package testbackend

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
)

// Message is one numbered message. Its bytes follow from its fields, so that
// whoever gets it can tell whether any of them is missing, foreign or out of
// place.
type Message struct {
	// Stream is whose number it is: a client, or one leg of a backend, which
	// is its Stent-Attempt.
	Stream uint32
	// Number counts a stream's messages from 1.
	Number uint32
	// Ack is the number of the message that this one answers; 0 is none.
	Ack uint32
}

// HeaderSize is the size of the smallest message.
const HeaderSize = 4 * 9

// MaxSize is the size of the largest message.
const MaxSize = 4 << 20

// filler is what messages are filled with: each with a part of its own. It
// is text, so that messages may be of either type, and compresses by half.
var filler = func() []byte {
	const digits = "0123456789abcdef"
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, MaxSize+8192)
	for i := range b {
		b[i] = digits[rng.IntN(len(digits))]
	}
	return b
}()

func (m Message) filler(n int) []byte {
	at := (m.Stream*2654435761 + m.Number*40503 + m.Ack) % 8191
	return filler[at : int(at)+n]
}

// Append appends the message, in size bytes and at least HeaderSize.
func (m Message) Append(dst []byte, size int) []byte {
	size = min(max(size, HeaderSize), MaxSize)
	dst = fmt.Appendf(dst, "%08x %08x %08x %08x ", m.Stream, m.Number, m.Ack, size)
	return append(dst, m.filler(size-HeaderSize)...)
}

// ErrTorn means that a message is not as it was sent.
var ErrTorn = errors.New("message is torn")

// Parse reads a message and checks every byte of it. The error is ErrTorn.
func Parse(data []byte) (Message, error) {
	var m Message
	var size int
	if len(data) < HeaderSize {
		return m, fmt.Errorf("%w: %d bytes", ErrTorn, len(data))
	}
	if _, err := fmt.Sscanf(string(data[:HeaderSize]), "%08x %08x %08x %08x ", &m.Stream, &m.Number, &m.Ack, &size); err != nil {
		return m, fmt.Errorf("%w: header %q", ErrTorn, data[:HeaderSize])
	}
	if size != len(data) {
		return m, fmt.Errorf("%w: %d bytes of %d", ErrTorn, len(data), size)
	}
	if !bytes.Equal(data[HeaderSize:], m.filler(size-HeaderSize)) {
		return m, fmt.Errorf("%w: number %d of stream %d has foreign bytes", ErrTorn, m.Number, m.Stream)
	}
	return m, nil
}
