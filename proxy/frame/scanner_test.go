package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// masked masks a frame's payload and sets its bit, with a key of its own.
func masked(plain []byte) []byte {
	h, n, err := ParseHeader(plain)
	if err != nil || n == 0 {
		panic(err)
	}
	h.Masked, h.Key = true, [4]byte{5, 6, 7, 8}
	return AppendFrame(nil, h, plain[n:])
}

func TestScannerRules(t *testing.T) {
	const text, binary, cont, fin = 0x01, 0x02, 0x00, 0x80
	tests := []struct {
		name string
		scan Scanner
		in   []byte
		at   int // where the break is found; -1 for none
		want error
	}{
		{"one frame", Scanner{}, wire(fin|text, 2, "hi"), -1, nil},
		{"fragments", Scanner{}, wire(text, 1, "a", cont, 0, cont, 1, "b", fin|cont, 1, "c"), -1, nil},
		{"an empty message in fragments", Scanner{}, wire(text, 0, cont, 0, fin|cont, 0), -1, nil},
		{"a ping between fragments", Scanner{}, wire(text, 1, "a", 0x89, 1, "p", fin|cont, 0), -1, nil},
		{"a pong nobody asked for", Scanner{}, wire(0x8a, 0), -1, nil},
		{"frames behind a close", Scanner{}, wire(0x88, 0, fin|text, 0), -1, nil},
		{"continuation of nothing", Scanner{}, wire(fin|text, 0, fin|cont, 0), 2, errContinuation},
		{"continuation at the start", Scanner{}, wire(cont, 0), 0, errContinuation},
		{"a message inside a message", Scanner{}, wire(text, 0, fin|binary, 0), 2, errInterleaved},
		{"a fragment inside a message", Scanner{}, wire(text, 0, text, 0), 2, errInterleaved},
		{"a ping does not end a message", Scanner{}, wire(text, 0, 0x89, 0, fin|text, 0), 4, errInterleaved},
		{"reserved opcode", Scanner{}, wire(fin|text, 0, 0x83, 0), 2, errOpcode},
		{"reserved control opcode", Scanner{}, wire(fin|text, 0, 0x8b, 0), 2, errOpcode},
		{"fragmented ping", Scanner{}, wire(0x09, 0), 0, errControlFragmented},
		{"ping of 126", Scanner{}, wire(0x89, 126, 0, 126), 0, errControlLong},
		{"length form", Scanner{}, wire(fin|text, 126, 0, 1), 0, errLengthForm},
		{"length bit", Scanner{}, wire(fin|text, 127, 0x80, 0, 0, 0, 0, 0, 0, 0), 0, errLengthBit},

		{"unmasked from a server", Scanner{}, wire(fin|text, 1, "x"), -1, nil},
		{"masked from a server", Scanner{}, wire(fin|text, 0x81, 1, 2, 3, 4, "x"), 0, errMasked},
		{"masked ping from a server", Scanner{}, wire(0x89, 0x80, 1, 2, 3, 4), 0, errMasked},
		{"masked from a client", Scanner{Masked: true}, wire(fin|text, 0x81, 1, 2, 3, 4, "x"), -1, nil},
		{"unmasked from a client", Scanner{Masked: true}, wire(fin|text, 1, "x"), 0, errUnmasked},
		{"unmasked and empty from a client", Scanner{Masked: true}, wire(fin|text, 0), 0, errUnmasked},
		{"unmasked close from a client", Scanner{Masked: true}, wire(0x88, 0), 0, errUnmasked},

		{"rsv1 without an extension", Scanner{}, wire(0xc1, 0), 0, errRsv},
		{"rsv2 without an extension", Scanner{}, wire(0xa1, 0), 0, errRsv},
		{"rsv3 without an extension", Scanner{}, wire(0x91, 0), 0, errRsv},
		{"rsv1 with deflate", Scanner{Rsv: Rsv1}, wire(0xc1, 0), -1, nil},
		{"rsv1 with deflate, fragments", Scanner{Rsv: Rsv1}, wire(0x41, 0, 0x80, 0), -1, nil},
		{"no rsv1 with deflate", Scanner{Rsv: Rsv1}, wire(0x81, 0), -1, nil},
		{"rsv1 on a continuation", Scanner{Rsv: Rsv1}, wire(0x41, 0, 0xc0, 0), 2, errRsv},
		{"rsv1 on a ping", Scanner{Rsv: Rsv1}, wire(0xc9, 0), 0, errRsv},
		{"rsv2 with deflate", Scanner{Rsv: Rsv1}, wire(0xe1, 0), 0, errRsv},
		{"rsv1 of another's on a continuation", Scanner{Rsv: Rsv1 | Rsv2}, wire(0x41, 0, 0xc0, 0), -1, nil},
		{"rsv2 of another's on a ping", Scanner{Rsv: Rsv2}, wire(0xa9, 0), -1, nil},
		{"rsv3 that nobody has", Scanner{Rsv: Rsv1 | Rsv2}, wire(0x91, 0), 0, errRsv},

		{"at the limit", Scanner{Limit: 2}, wire(fin|text, 2, "hi"), -1, nil},
		{"above the limit", Scanner{Limit: 2}, wire(fin|text, 2, "hi", fin|text, 3, "hey"), 4, ErrTooBig},
		{"fragments at the limit", Scanner{Limit: 2}, wire(text, 1, "h", cont, 0, fin|cont, 1, "i"), -1, nil},
		{"fragments above the limit", Scanner{Limit: 2}, wire(text, 1, "h", cont, 1, "i", fin|cont, 1, "!"), 6, ErrTooBig},
		{"63 bits above the limit", Scanner{Limit: 2}, wire(fin|binary, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0, ErrTooBig},
		{"63 bits behind a byte", Scanner{Limit: 1 << 62}, wire(binary, 1, "x", fin|cont, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 3, ErrTooBig},
		{"pings don't count", Scanner{Limit: 2}, wire(text, 2, "hi", 0x89, 3, "hey", fin|cont, 0), -1, nil},
		{"each message counts anew", Scanner{Limit: 2}, wire(fin|text, 2, "hi", fin|text, 2, "hi"), -1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for chunk := 1; chunk <= len(tt.in); chunk++ {
				scan := tt.scan
				at, err := scanAll(&scan, tt.in, func() int { return chunk }, nil)
				if want := tt.at; want < 0 {
					if err != nil || at != len(tt.in) {
						t.Fatalf("in chunks of %d: got %v at %d, want no error", chunk, err, at)
					}
				} else if codeOf(err) != codeOf(tt.want) || at != want {
					t.Fatalf("in chunks of %d: got %v at %d, want %v at %d", chunk, err, at, tt.want, want)
				}
			}
			scan := tt.scan
			if _, err := scanAll(&scan, tt.in, func() int { return len(tt.in) }, nil); err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func codeOf(err error) int {
	var fe *Error
	if errors.As(err, &fe) {
		return fe.Code
	}
	return 0
}

// scanAll gives a stream to a scanner in chunks, the unconsumed rest in
// front of the next, as a reader does. It returns how much was consumed.
func scanAll(s *Scanner, stream []byte, chunk func() int, see func(Event, []byte)) (at int, err error) {
	for have := 0; have < len(stream); {
		have = min(len(stream), have+max(1, chunk()))
		for at < have {
			ev, n, err := s.Next(stream[at:have])
			if n < 0 || n > have-at {
				panic(fmt.Sprintf("consumed %d of %d", n, have-at))
			}
			if err != nil {
				if n != 0 {
					panic("consumed with an error")
				}
				return at, err
			}
			if ev == More {
				if n != 0 {
					panic("consumed and asked for more")
				}
				break
			}
			if n == 0 {
				panic("an event of nothing")
			}
			if see != nil {
				see(ev, stream[at:at+n])
			}
			at += n
		}
	}
	return at, nil
}

func TestScannerState(t *testing.T) {
	type state struct {
		ev                 Event
		n                  int
		first, frame, open bool
		kind               Opcode
		size               int64
		deflated           bool
	}
	s := Scanner{Rsv: Rsv1}
	stream := wire(0x41, 2, "ab", 0x89, 1, "p", 0x80, 3, "cde", 0x82, 0)
	steps := []struct {
		give int
		want state
	}{
		{1, state{More, 0, false, true, false, 0, 0, false}},
		{2, state{Data, 2, true, false, true, Text, 2, true}},
		{1, state{Data, 1, false, false, true, Text, 2, true}},
		{8, state{Data, 1, false, true, true, Text, 2, true}},
		{2, state{More, 0, false, true, true, Text, 2, true}},
		{3, state{Control, 3, false, true, true, Text, 2, true}},
		{5, state{Final, 5, false, true, false, Text, 5, true}},
		{2, state{Final, 2, true, true, false, Binary, 0, false}},
	}
	for i, st := range steps {
		ev, n, err := s.Next(stream[:st.give])
		if err != nil {
			t.Fatal(err)
		}
		got := state{ev, n, s.First(), s.AtFrame(), !s.AtMessage() && (s.open || !s.AtFrame()), s.Type(), s.Size(), s.Deflated()}
		if got != st.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, st.want)
		}
		if ev == Control && (s.Header().Opcode != Ping || s.Header().Length != 1) {
			t.Errorf("step %d: got header %+v", i, s.Header())
		}
		stream = stream[n:]
	}
	if ev, n, err := s.Next(nil); ev != More || n != 0 || err != nil || !s.AtMessage() {
		t.Errorf("of nothing: got %d, %d, %v", ev, n, err)
	}
}

// told is what a decoder tells of a stream: its whole frames, and the part
// of one at the end.
type told struct {
	frames  []Header
	final   []bool // the frame ended a message
	payload []byte // of data frames, as on the wire
	partial int64  // payload bytes of a data frame at the end that is not whole
	code    int    // of the break of the protocol; 0 is none
	stopped int    // where it stopped to read
}

// naive decodes a stream as the RFC is written, all at once.
func naive(s Scanner, b []byte) (r told) {
	open, size := false, int64(0)
	for {
		h, n, err := ParseHeader(b[r.stopped:])
		have := len(b) - r.stopped
		if have == 0 {
			return r
		}
		allowed := s.Rsv
		if s.Rsv == Rsv1 && h.Opcode != Text && h.Opcode != Binary {
			allowed = 0
		}
		data := !h.Opcode.Control()
		bad := err != nil || h.Rsv&^allowed != 0 ||
			data && (h.Opcode == Continuation) != open ||
			have > 1 && h.Masked != s.Masked
		if bad {
			r.code = CodeProtocol
			return r
		}
		if n == 0 {
			return r
		}
		left := int64(have - n)
		if !data {
			if left < h.Length {
				return r
			}
			r.frames, r.final = append(r.frames, h), append(r.final, false)
			r.stopped += n + int(h.Length)
			continue
		}
		if h.Opcode != Continuation {
			size = 0
		}
		if size += h.Length; s.Limit > 0 && (size > s.Limit || size < 0) {
			r.code = CodeTooBig
			return r
		}
		whole := min(left, h.Length)
		r.payload = append(r.payload, b[r.stopped+n:r.stopped+n+int(whole)]...)
		r.stopped += n + int(whole)
		if whole < h.Length {
			r.partial = whole + 1
			return r
		}
		open = !h.Fin
		r.frames, r.final = append(r.frames, h), append(r.final, h.Fin)
	}
}

// scanned is the same by a Scanner, in chunks.
func scanned(s Scanner, b []byte, chunk func() int) (r told) {
	start := true
	var err error
	r.stopped, err = scanAll(&s, b, chunk, func(ev Event, p []byte) {
		n := 0
		if start {
			_, n, _ = ParseHeader(p)
		}
		start = s.AtFrame()
		if ev == Control {
			r.frames, r.final = append(r.frames, s.Header()), append(r.final, false)
			return
		}
		r.payload = append(r.payload, p[n:]...)
		if n > 0 {
			r.partial = 0
		}
		r.partial += int64(len(p) - n)
		if start {
			r.frames, r.final = append(r.frames, s.Header()), append(r.final, ev == Final)
		}
		if (ev == Final) != s.AtMessage() {
			panic("a message's end that is none")
		}
	})
	r.code = codeOf(err)
	if start {
		r.partial = 0
	} else {
		r.partial++
	}
	return r
}

func equal(a, b told) bool {
	return slices.Equal(a.frames, b.frames) && slices.Equal(a.final, b.final) && bytes.Equal(a.payload, b.payload) &&
		a.partial == b.partial && a.code == b.code && a.stopped == b.stopped
}

func FuzzScanner(f *testing.F) {
	f.Add(wire(0x01, 1, "a", 0x89, 1, "p", 0x80, 1, "b"), []byte{1}, uint8(0), uint16(0))
	f.Add(wire(0x81, 0x81, 1, 2, 3, 4, "x", 0x88, 0x82, 1, 2, 3, 4, 5, 6), []byte{3, 1}, uint8(1), uint16(0))
	f.Add(wire(0xc1, 126, 0, 200, bytes.Repeat([]byte("x"), 200), 0x82, 0), []byte{100, 2}, uint8(2), uint16(250))
	f.Add(wire(0x02, 127, 0, 0, 0, 0, 0, 1, 0, 0, "x"), []byte{}, uint8(0), uint16(3))
	f.Add(wire(0x02, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, "x"), []byte{}, uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, stream, chunks []byte, mode uint8, limit uint16) {
		s := Scanner{Masked: mode&1 != 0, Rsv: mode << 3 & rsvBits, Limit: int64(limit)}
		want := naive(s, stream)
		i := 0
		got := scanned(s, stream, func() int {
			if len(chunks) == 0 {
				return len(stream)
			}
			i++
			return int(chunks[i%len(chunks)])
		})
		if !equal(got, want) {
			t.Fatalf("%+v: %x in chunks of %v\n got %+v\nwant %+v", s, stream, chunks, got, want)
		}
	})
}

// TestScannerRandom is FuzzScanner over streams that are mostly good.
func TestScannerRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 600 {
		s := Scanner{Masked: rnd.IntN(2) == 0}
		var stream []byte
		open := false
		for range 1 + rnd.IntN(8) {
			h := Header{Fin: rnd.IntN(2) == 0, Opcode: Text, Masked: s.Masked}
			size := []int{0, 1, 124, 125, 126, 127, 300, 65535, 65536}[rnd.IntN(9)]
			switch {
			case rnd.IntN(4) == 0:
				h.Fin, h.Opcode, size = true, Ping, rnd.IntN(126)
			case open:
				h.Opcode, open = Continuation, !h.Fin
			default:
				open = !h.Fin
			}
			stream = AppendFrame(stream, h, make([]byte, size))
		}
		if rnd.IntN(4) == 0 {
			stream[rnd.IntN(len(stream))] ^= 1 << rnd.IntN(8)
		}
		stream = stream[:rnd.IntN(len(stream)+1)]
		limit := 1 + rnd.IntN(200)
		got, want := scanned(s, stream, func() int { return rnd.IntN(limit) }), naive(s, stream)
		if !equal(got, want) {
			t.Fatalf("%+v: got %+v, want %+v", s, got.frames, want.frames)
		}
	}
}

func TestScannerDoesNotAllocate(t *testing.T) {
	stream := masked(wire(0x81, 126, 4, 0, make([]byte, 1024)))
	s := Scanner{Masked: true}
	if got := testing.AllocsPerRun(100, func() {
		for b := stream; len(b) > 0; {
			_, n, err := s.Next(b[:min(len(b), 500)])
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
	}); got != 0 {
		t.Errorf("got %v allocations a message, want none", got)
	}
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			stream := AppendFrame(nil, Header{Fin: true, Opcode: Binary, Masked: true}, make([]byte, size))
			s := Scanner{Masked: true}
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if ev, n, err := s.Next(stream); ev != Final || n != len(stream) || err != nil {
					b.Fatal(ev, n, err)
				}
			}
		})
	}
}
