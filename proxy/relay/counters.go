package relay

import (
	"math/bits"
	"sync/atomic"
)

// Counters counts what one side of a session sent. One goroutine writes;
// any may read.
type Counters struct {
	Text, Binary atomic.Uint64 // messages
	Bytes        atomic.Uint64 // payload of messages, as on the wire
	Pings        atomic.Uint64
	Limited      atomic.Uint64 // messages slowed or dropped by a rate
}

// Messages returns the number of messages.
func (c *Counters) Messages() uint64 { return c.Text.Load() + c.Binary.Load() }

// SizeBounds are the upper bounds of the message size buckets, in bytes.
var SizeBounds = [...]int64{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20}

// sizeBuckets has the bucket of a size by the length of size-1 in bits.
var sizeBuckets = func() (t [65]uint8) {
	for n := range t {
		for t[n] < uint8(len(SizeBounds)) && n > bits.Len64(uint64(SizeBounds[t[n]]-1)) {
			t[n]++
		}
	}
	return t
}()

// sizeBucket returns the index of the bucket that counts a size.
func sizeBucket(size int64) uint8 { return sizeBuckets[bits.Len64(uint64(max(size-1, 0)))] }

// Sizes is a histogram of message sizes, shared by the sessions of a route.
type Sizes struct {
	Buckets [len(SizeBounds) + 1]atomic.Uint64
	Sum     atomic.Uint64
}

// tally counts the messages of one chunk before they are added to what all
// can read: a chunk may hold many, and an atomic addition costs as much as
// the parsing of a header.
type tally struct {
	text, binary, bytes uint64
	bucket              uint8 // of the last messages
	run                 uint64
}

func (t *tally) empty() bool { return t.text+t.binary == 0 }

// settle adds the tally to the counters.
func (t *tally) settle(c *Counters, s *Sizes) {
	if t.text > 0 {
		c.Text.Add(t.text)
	}
	if t.binary > 0 {
		c.Binary.Add(t.binary)
	}
	c.Bytes.Add(t.bytes)
	if s != nil {
		s.Buckets[t.bucket].Add(t.run)
		s.Sum.Add(t.bytes)
	}
	*t = tally{}
}
