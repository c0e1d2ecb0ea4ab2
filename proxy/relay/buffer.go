package relay

import "sync"

// Two sizes of read buffer: most chunks are small, and a small buffer stays
// in cache; a leg that fills one reads its next chunk into a large one.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// buffer is pooled memory for one chunk of a stream.
type buffer struct {
	b []byte
}

var (
	smallBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, smallBuffer)} }}
	largeBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, largeBuffer)} }}
)

// getBuffer returns a buffer of at least n bytes.
func getBuffer(n int) *buffer {
	switch {
	case n <= smallBuffer:
		return smallBuffers.Get().(*buffer)
	case n <= largeBuffer:
		return largeBuffers.Get().(*buffer)
	default:
		return &buffer{make([]byte, n)}
	}
}

// release gives the buffer back. Buffers that grew beyond the large size
// are left to the collector, so that one huge message does not stay.
func (b *buffer) release() {
	switch cap(b.b) {
	case smallBuffer:
		b.b = b.b[:smallBuffer]
		smallBuffers.Put(b)
	case largeBuffer:
		b.b = b.b[:largeBuffer]
		largeBuffers.Put(b)
	}
}

// gathered is a pooled buffer that grows by appending. The zero value is
// empty and holds no memory.
type gathered struct {
	buf *buffer
	n   int
}

func (g *gathered) len() int { return g.n }

func (g *gathered) bytes() []byte {
	if g.buf == nil {
		return nil
	}
	return g.buf.b[:g.n]
}

func (g *gathered) append(p []byte) {
	if len(p) == 0 {
		return
	}
	if g.buf == nil {
		g.buf = getBuffer(len(p))
	}
	if need := g.n + len(p); need > len(g.buf.b) {
		grown := getBuffer(max(need, min(2*len(g.buf.b), need+1<<20)))
		copy(grown.b, g.buf.b[:g.n])
		g.buf.release()
		g.buf = grown
	}
	g.n += copy(g.buf.b[g.n:], p)
}

// drop forgets the first n bytes.
func (g *gathered) drop(n int) {
	if n >= g.n {
		g.reset()
		return
	}
	g.n = copy(g.buf.b, g.buf.b[n:g.n])
}

// reset empties g and gives its memory back.
func (g *gathered) reset() {
	if g.buf != nil {
		g.buf.release()
	}
	*g = gathered{}
}
