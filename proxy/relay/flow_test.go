package relay

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// stream is a valid stream of frames, and where its boundaries are.
type stream struct {
	bytes    []byte
	data     []byte   // without the control frames
	controls [][]byte // whole control frames, in order
	messages []span   // of data
	ends     []int    // of data: where frames end
}

// span is one message: its place in the data, and what it holds.
type span struct {
	from, to int
	size     int64 // of its payload
}

// randomStream makes messages with sizes around whole, in random fragments,
// with control frames between them.
func randomStream(rnd *rand.Rand, count int, whole int64, masked bool) (s stream) {
	add := func(h frame.Header, payload []byte) {
		h.Masked = masked
		binary.LittleEndian.PutUint32(h.Key[:], rnd.Uint32())
		if !masked {
			h.Key = [4]byte{}
		}
		f := frame.AppendFrame(nil, h, payload)
		s.bytes = append(s.bytes, f...)
		if h.Opcode.Control() {
			s.controls = append(s.controls, f)
			return
		}
		s.data = append(s.data, f...)
		s.ends = append(s.ends, len(s.data))
	}
	control := func() {
		for rnd.IntN(4) == 0 {
			op := []frame.Opcode{frame.Ping, frame.Pong}[rnd.IntN(2)]
			add(frame.Header{Fin: true, Opcode: op}, make([]byte, rnd.IntN(126)))
		}
	}
	sizes := []int{0, 1, 125, 126, int(whole) - 1, int(whole), int(whole) + 1, 2 * int(whole), 5000, 70000}
	for range count {
		size := max(0, sizes[rnd.IntN(len(sizes))])
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rnd.Uint32())
		}
		m := span{from: len(s.data), size: int64(size)}
		op := []frame.Opcode{frame.Text, frame.Binary}[rnd.IntN(2)]
		for {
			n := len(body)
			if rnd.IntN(2) == 0 {
				n = rnd.IntN(n + 1)
			}
			fin := n == len(body) && rnd.IntN(4) > 0
			add(frame.Header{Fin: fin, Opcode: op}, body[:n])
			control()
			if body, op = body[n:], frame.Continuation; fin {
				break
			}
		}
		m.to = len(s.data)
		s.messages = append(s.messages, m)
		control()
	}
	return s
}

// passed is what came out of a flow.
type passed struct {
	all      []byte // out and control
	data     []byte
	controls [][]byte
	messages [][]byte
	outs     []passedOut
	maxPend  int
}

type passedOut struct {
	from, to int // in data
	mark     mark
	piece    bool
}

// drive gives a stream to a flow in chunks, as a leg's reader does.
func drive(t testing.TB, f *flow, in []byte, chunk func() int) (p passed, err error) {
	var carry []byte
	for len(in) > 0 {
		n := max(1, min(len(in), chunk()))
		b := append(carry, in[:n]...)
		in = in[n:]
		for len(b) > 0 {
			st, err := f.next(b, 1)
			f.settle(1)
			if st.n < 0 || st.n > len(b) {
				t.Fatalf("consumed %d of %d bytes", st.n, len(b))
			}
			if st.control != nil && (st.message != nil || st.n < len(st.control)) {
				t.Fatal("a control frame beside something else")
			}
			if len(st.out) > 0 {
				p.all = append(p.all, st.out...)
				p.outs = append(p.outs, passedOut{len(p.data), len(p.data) + len(st.out), st.mark, st.piece})
				p.data = append(p.data, st.out...)
			}
			if st.message != nil {
				p.data = append(p.data, st.message...)
				p.messages = append(p.messages, bytes.Clone(st.message))
			}
			if st.control != nil {
				p.all = append(p.all, st.control...)
				p.controls = append(p.controls, bytes.Clone(st.control))
			}
			p.maxPend = max(p.maxPend, f.pend.len())
			if err != nil {
				return p, err
			}
			if st.n == 0 {
				break
			}
			b = b[st.n:]
		}
		f.release()
		if f.gathers() && f.scan.AtMessage() && f.pend.buf != nil {
			t.Fatal("a buffer is held between two messages")
		}
		carry = bytes.Clone(b)
	}
	if len(carry) > frame.MaxHeader+frame.MaxControl {
		t.Fatalf("%d bytes are left", len(carry))
	}
	return p, nil
}

func newFlow(whole int64, assemble, masked bool, limit int64) *flow {
	return &flow{scan: frame.Scanner{Masked: masked, Limit: limit}, whole: whole, assemble: assemble,
		count: new(Counters), sizes: new(Sizes), last: new(atomic.Int64)}
}

// checkFlow compares what came out with what went in.
func checkFlow(t *testing.T, f *flow, s stream, p passed) {
	t.Helper()
	if !bytes.Equal(p.data, s.data) {
		t.Fatalf("data: %d bytes came out, %d went in", len(p.data), len(s.data))
	}
	if len(p.controls) != len(s.controls) {
		t.Fatalf("got %d control frames, want %d", len(p.controls), len(s.controls))
	}
	for i, c := range p.controls {
		if !bytes.Equal(c, s.controls[i]) {
			t.Fatalf("control frame %d: got %x, want %x", i, c, s.controls[i])
		}
	}
	if !f.gathers() && !bytes.Equal(p.all, s.bytes) {
		t.Fatal("the stream came out in another order")
	}
	if f.assemble {
		for i, m := range p.messages {
			if want := s.data[s.messages[i].from:s.messages[i].to]; !bytes.Equal(m, want) {
				t.Fatalf("message %d: got %d bytes, want %d", i, len(m), len(want))
			}
		}
		if len(p.messages) != len(s.messages) {
			t.Fatalf("got %d messages, want %d", len(p.messages), len(s.messages))
		}
	}
	var size uint64
	for _, m := range s.messages {
		size += uint64(m.size)
	}
	if got := f.count.Messages(); got != uint64(len(s.messages)) || f.count.Bytes.Load() != size || f.sizes.Sum.Load() != size {
		t.Fatalf("counted %d messages of %d bytes, want %d of %d", got, f.count.Bytes.Load(), len(s.messages), size)
	}
	for _, o := range p.outs {
		checkOut(t, f, s, o)
	}
}

func checkOut(t *testing.T, f *flow, s stream, o passedOut) {
	t.Helper()
	last := noMark
	for _, end := range s.ends {
		if end > o.from && end <= o.to {
			last.frame = end - o.from
		}
	}
	gathered := false // a message in it is small enough to come whole
	for _, m := range s.messages {
		if m.to > o.from && m.to <= o.to {
			last.message = m.to - o.from
		}
		if m.from < o.to && m.to > o.from && m.size <= f.whole && int64(m.to-m.from) <= 2*f.whole {
			gathered = true
		}
	}
	if o.mark.frame != last.frame && (o.mark.frame != -1 || !o.piece) {
		t.Fatalf("out %+v: the last frame ends at %d", o, last.frame)
	}
	if o.mark.message != last.message && (o.mark.message != -1 || !o.piece) {
		t.Fatalf("out %+v: the last message ends at %d", o, last.message)
	}
	if !f.gathers() {
		return
	}
	if o.piece && gathered {
		t.Fatalf("out %+v: a small message went on in pieces", o)
	}
	if !o.piece && last != (mark{o.to - o.from, o.to - o.from}) {
		t.Fatalf("out %+v: it does not end with a message, but has its last end at %+v", o, last)
	}
}

func TestFlowPassesEverything(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	modes := []struct {
		name     string
		whole    int64
		assemble bool
	}{{"relay", 0, false}, {"whole 1", 1, false}, {"whole 100", 100, false}, {"whole 64 KiB", 64 << 10, false}, {"assemble", 0, true}}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			for range 150 {
				masked := rnd.IntN(2) == 0
				s := randomStream(rnd, 1+rnd.IntN(12), max(mode.whole, 100), masked)
				limit := []int{1, 5, 100, 4096, 1 << 20}[rnd.IntN(5)]
				if limit < 100 && len(s.bytes) > 20000 {
					limit = 4096
				}
				f := newFlow(mode.whole, mode.assemble, masked, 0)
				p, err := drive(t, f, s.bytes, func() int { return rnd.IntN(limit) + 1 })
				if err != nil {
					t.Fatal(err)
				}
				checkFlow(t, f, s, p)
				if bound := int(2*mode.whole) + smallBuffer + limit; mode.whole > 0 && p.maxPend > bound {
					t.Fatalf("%d bytes were gathered, want at most %d", p.maxPend, bound)
				}
			}
		})
	}
}

// Many fragments of nothing must not hold more memory than the message they
// make would.
func TestFlowBoundsOverhead(t *testing.T) {
	fragment := frame.AppendFrame(nil, frame.Header{Masked: true}, nil)
	in := frame.AppendFrame(nil, frame.Header{Opcode: frame.Text, Masked: true}, nil)
	in = append(in, bytes.Repeat(fragment, 100000)...)
	t.Run("whole", func(t *testing.T) {
		f := newFlow(1000, false, true, 0)
		p, err := drive(t, f, in, func() int { return 4096 })
		if err != nil || p.maxPend > 2*1000+2*4096 {
			t.Errorf("got %v, with %d bytes gathered", err, p.maxPend)
		}
		if !bytes.Equal(p.data, in) {
			t.Error("not all of it went on")
		}
	})
	t.Run("assemble", func(t *testing.T) {
		f := newFlow(0, true, true, 1000)
		p, err := drive(t, f, in, func() int { return 4096 })
		if err != frame.ErrTooBig || p.maxPend > 2*1000+largeBuffer+4096 {
			t.Errorf("got %v, with %d bytes gathered, want ErrTooBig", err, p.maxPend)
		}
	})
}

// What comes before a break of the protocol goes on first.
func TestFlowErrors(t *testing.T) {
	good := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte("good"))
	tests := []struct {
		name string
		bad  []byte
		code int
	}{
		{"opcode", []byte{0x83, 0}, 1002},
		{"too big", []byte{0x82, 126, 0xff, 0xff}, 1009},
		{"continuation", []byte{0x80, 0}, 1002},
	}
	for _, tt := range tests {
		for name, f := range map[string]*flow{"relay": newFlow(0, false, false, 1000), "whole": newFlow(500, false, false, 1000), "assemble": newFlow(0, true, false, 1000)} {
			t.Run(tt.name+" "+name, func(t *testing.T) {
				p, err := drive(t, f, append(bytes.Clone(good), tt.bad...), func() int { return 1 << 10 })
				if !bytes.Equal(p.data, good) {
					t.Errorf("got %q before the break", p.data)
				}
				if fe, ok := err.(*frame.Error); !ok || fe.Code != tt.code {
					t.Errorf("got %v, want %d", err, tt.code)
				}
			})
		}
	}
}

func FuzzFlow(f *testing.F) {
	f.Add(uint64(1), []byte{1, 200}, uint16(0), uint8(0))
	f.Add(uint64(2), []byte{7}, uint16(100), uint8(1))
	f.Add(uint64(3), []byte{}, uint16(1), uint8(2))
	f.Add(uint64(4), []byte{255, 255, 3}, uint16(0), uint8(7))
	f.Fuzz(func(t *testing.T, seed uint64, chunks []byte, whole uint16, mode uint8) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		masked, assemble := mode&1 != 0, mode&2 != 0
		s := randomStream(rnd, 1+int(mode>>4), max(100, int64(whole)), masked)
		i, factor := 0, 1+int(mode>>2&3)*40
		chunk := func() int {
			if len(chunks) == 0 {
				return len(s.bytes)
			}
			i++
			return int(chunks[i%len(chunks)]) * factor
		}
		fl := newFlow(int64(whole), assemble, masked, 0)
		p, err := drive(t, fl, s.bytes, chunk)
		if err != nil {
			t.Fatal(err)
		}
		checkFlow(t, fl, s, p)
	})
}

// FuzzFlowBytes gives a flow bytes of any kind: it must not panic, nor pass
// on what is no prefix of them, nor gather without bound.
func FuzzFlowBytes(f *testing.F) {
	f.Add([]byte("\x01\x01a\x89\x00\x80\x01b\x88\x02\x03\xe8"), uint8(3), uint8(50), uint8(0))
	f.Add([]byte("\x81\x85\x01\x02\x03\x04hello\x82\xfe\x01\x00"), uint8(1), uint8(0), uint8(1))
	f.Add(bytes.Repeat([]byte("\x00\x00"), 100), uint8(9), uint8(4), uint8(12))
	f.Fuzz(func(t *testing.T, in []byte, chunk, whole, mode uint8) {
		fl := newFlow(int64(whole), mode&2 != 0, mode&1 != 0, int64(mode>>4)*64)
		if mode&12 != 0 {
			fl.limit = newLimiter(Rate{Messages: 1e-9, Bytes: 1e-9, Burst: time.Second, OnLimit: OnLimit(mode >> 2 & 3 % 3)}, nil, 1)
		}
		p, err := drive(t, fl, in, func() int { return int(chunk) })
		if err == nil && !fl.gathers() && fl.limit == nil {
			if !bytes.HasPrefix(in, p.all) || len(in)-len(p.all) > frame.MaxHeader+frame.MaxControl {
				t.Fatalf("%d of %d bytes came out", len(p.all), len(in))
			}
		}
	})
}

func TestFlowDoesNotAllocate(t *testing.T) {
	if racing {
		t.Skip("pools forget under the race detector")
	}
	masked := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text, Masked: true}, make([]byte, 1000))
	in := bytes.Repeat(masked, 3)
	for name, f := range map[string]*flow{"relay": newFlow(0, false, true, 0), "whole": newFlow(64<<10, false, true, 0), "assemble": newFlow(0, true, true, 1<<20)} {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(1000, func() {
				for b := in; len(b) > 0; {
					n := min(len(b), 700)
					st, err := f.next(b[:n], 1)
					if err != nil || st.n != n && st.n == 0 {
						t.Fatal(st.n, err)
					}
					f.settle(1)
					b = b[st.n:]
				}
				f.release()
			}); got != 0 {
				t.Errorf("got %v allocations, want none", got)
			}
		})
	}
}

// rated sends messages of a size at fixed instants to a flow with a rate,
// waiting where it says, and returns how many came through by the end.
func rated(t *testing.T, r Rate, size int, each time.Duration, count int) (through int, took time.Duration, err error) {
	t.Helper()
	f := newFlow(0, false, false, 0)
	at := instant(1)
	f.limit = newLimiter(r, nil, at)
	message := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, make([]byte, size))
	for i := range count {
		at = max(at, instant(1).add(time.Duration(i)*each))
		for b := message; len(b) > 0; {
			st, err := f.next(b, at)
			if err != nil {
				return through, time.Duration(at), err
			}
			if len(st.out) > 0 {
				through++
			}
			at = at.add(st.wait)
			b = b[st.n:]
		}
	}
	return through, time.Duration(at), nil
}

func TestRateSlow(t *testing.T) {
	tests := []struct {
		name string
		rate Rate
		size int
		want time.Duration // for 1000 messages, all sent at once
	}{
		{"messages", Rate{Messages: 10, Burst: time.Second}, 10, 99 * time.Second},
		{"a fraction of a message", Rate{Messages: 0.5, Burst: time.Second}, 10, 1998 * time.Second},
		{"bytes", Rate{Bytes: 1000, Burst: time.Second}, 100, 99 * time.Second},
		{"messages larger than the burst", Rate{Bytes: 1000, Burst: time.Second}, 5000, 4999 * time.Second},
		{"the tighter of two", Rate{Messages: 1000, Bytes: 1000, Burst: time.Second}, 100, 99 * time.Second},
		{"a long burst", Rate{Messages: 10, Burst: 50 * time.Second}, 10, 50 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, took, err := rated(t, tt.rate, tt.size, 0, 1000)
			if err != nil || n != 1000 {
				t.Fatalf("got %d messages, %v", n, err)
			}
			if off := float64(took-tt.want) / float64(tt.want); off < -0.01 || off > 0.01 {
				t.Errorf("1000 messages took %s, want %s", took, tt.want)
			}
		})
	}
	t.Run("below the rate nothing waits", func(t *testing.T) {
		_, took, _ := rated(t, Rate{Messages: 10, Burst: time.Second}, 10, 100*time.Millisecond, 1000)
		if want := 999 * 100 * time.Millisecond; took-want > time.Millisecond {
			t.Errorf("took %s, want %s", took, want)
		}
	})
}

// A message counts whichever of its fragments makes it too large to be
// gathered.
func TestRateSlowsFragments(t *testing.T) {
	for name, sizes := range map[string][]int{
		"none":  {10, 10},
		"first": {100, 10},
		"one":   {10, 100, 10},
		"last":  {10, 100},
	} {
		t.Run(name, func(t *testing.T) {
			var message []byte
			op := frame.Text
			for i, n := range sizes {
				message = frame.AppendFrame(message, frame.Header{Fin: i == len(sizes)-1, Opcode: op}, make([]byte, n))
				op = frame.Continuation
			}
			f, at := newFlow(64, false, false, 0), instant(1)
			f.limit = newLimiter(Rate{Messages: 10, Burst: time.Second}, nil, at)
			for range 1000 {
				for b := message; len(b) > 0; {
					st, err := f.next(b, at)
					if err != nil {
						t.Fatal(err)
					}
					b, at = b[st.n:], at.add(st.wait)
				}
			}
			if took, want := time.Duration(at), 99*time.Second; took < want || took > want+time.Second {
				t.Errorf("1000 messages took %s, want %s", took, want)
			}
		})
	}
}

func TestRateDrop(t *testing.T) {
	// Twice the rate for 100 s: half of it comes through, and the burst.
	n, took, err := rated(t, Rate{Messages: 10, Burst: time.Second, OnLimit: DropMessage}, 10, 50*time.Millisecond, 2000)
	if err != nil || took > 101*time.Second {
		t.Fatalf("took %s, %v", took, err)
	}
	if n < 1000 || n > 1020 {
		t.Errorf("%d messages came through, want 1010", n)
	}
	n, _, _ = rated(t, Rate{Bytes: 1000, Burst: time.Second, OnLimit: DropMessage}, 100, 50*time.Millisecond, 2000)
	if n < 1000 || n > 1020 {
		t.Errorf("%d messages came through, want 1010", n)
	}
}

// Of a message over the rate no byte goes on, whatever its frames and its
// chunks; control frames between them do.
func TestRateDropsWholeMessages(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, whole := range []int64{0, 100} {
		for range 100 {
			s := randomStream(rnd, 6, 100, true)
			f := newFlow(whole, false, true, 0)
			f.limit = newLimiter(Rate{Messages: 1e-9, Burst: time.Second, OnLimit: DropMessage}, nil, 1)
			limit := []int{1, 50, 5000}[rnd.IntN(3)]
			if len(s.bytes) > 20000 {
				limit = 5000
			}
			p, err := drive(t, f, s.bytes, func() int { return 1 + rnd.IntN(limit) })
			if err != nil {
				t.Fatal(err)
			}
			first := s.messages[0]
			if !bytes.Equal(p.data, s.data[first.from:first.to]) {
				t.Fatalf("got %d bytes, want the first message's %d", len(p.data), first.to)
			}
			if len(p.controls) != len(s.controls) {
				t.Fatalf("got %d control frames, want %d", len(p.controls), len(s.controls))
			}
			if got := f.count.Limited.Load(); got != 5 || f.count.Messages() != 1 {
				t.Fatalf("counted %d dropped and %d messages, want 5 and 1", got, f.count.Messages())
			}
		}
	}
}

func TestRateClose(t *testing.T) {
	n, _, err := rated(t, Rate{Messages: 10, Burst: time.Second, OnLimit: CloseSession}, 10, 0, 1000)
	if n != 10 || err != errOverLimit {
		t.Errorf("got %d messages, %v, want 10 and errOverLimit", n, err)
	}
}
