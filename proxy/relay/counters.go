package relay

import "sync/atomic"

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

// Sizes is a histogram of message sizes, shared by the sessions of a route.
type Sizes struct {
	Buckets [len(SizeBounds) + 1]atomic.Uint64
	Sum     atomic.Uint64
}

func (s *Sizes) observe(size int64) {
	i := 0
	for i < len(SizeBounds) && size > SizeBounds[i] {
		i++
	}
	s.Buckets[i].Add(1)
	s.Sum.Add(uint64(size))
}
