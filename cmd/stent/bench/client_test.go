package bench

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// script is a connection that reads what it was given, in pieces of a size,
// and keeps what is written.
type script struct {
	net.Conn
	in    []byte
	piece int
	out   bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// play has a client with so many messages posted read all of in.
func play(m *message, posted, piece int, in []byte) (*script, []int64, error) {
	s := &script{in: in, piece: piece}
	c := newClient(s, bufio.NewReader(bytes.NewReader(nil)), m, 7, 1)
	for n := range posted {
		c.post(1, int64(n))
	}
	var got []int64
	for {
		times, err := c.receive()
		got = append(got, times...)
		if err != nil {
			return s, got, err
		}
	}
}

// back is the echo of message n of client 7, in frames of at most size.
func back(m *message, n uint32, size int) (b []byte) {
	payload := bytes.Clone(m.plain)
	own := stamp(7, n)
	copy(payload, own[:])
	op := frame.Binary
	for {
		part := payload[:min(size, len(payload))]
		payload = payload[len(part):]
		b = frame.AppendFrame(b, frame.Header{Fin: len(payload) == 0, Opcode: op}, part)
		if op = frame.Continuation; len(payload) == 0 {
			return b
		}
	}
}

func TestClientReads(t *testing.T) {
	m := newMessage(300)
	ping := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Ping}, []byte("you?"))
	goodbye := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Close}, frame.AppendClose(nil, 1000, ""))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	server := func(h frame.Header) []byte { return frame.AppendFrame(nil, h, m.plain) }
	for _, tt := range []struct {
		name   string
		posted int
		in     []byte
		echoes int
		want   error
	}{
		{"one", 1, back(m, 0, 300), 1, io.EOF},
		{"three", 3, join(back(m, 0, 300), back(m, 1, 300), back(m, 2, 300)), 3, io.EOF},
		{"fragments", 2, join(back(m, 0, 100), back(m, 1, 1)), 2, io.EOF},
		{"a ping inside", 1, join(back(m, 0, 299)[:4+299], ping, back(m, 0, 299)[4+299:]), 1, io.EOF},
		{"then a close", 1, join(back(m, 0, 300), goodbye), 1, errClosed},
		{"in another order", 2, join(back(m, 1, 300), back(m, 0, 300)), 0, errBroken},
		{"twice", 1, join(back(m, 0, 300), back(m, 1, 300)), 1, errUnasked},
		{"unasked", 0, back(m, 0, 300), 0, errUnasked},
		{"text", 1, server(frame.Header{Fin: true, Opcode: frame.Text}), 0, errKind},
		{"masked", 1, server(frame.Header{Fin: true, Opcode: frame.Binary, Masked: true}), 0, errMasked},
		{"reserved bit", 1, server(frame.Header{Fin: true, Opcode: frame.Binary, Rsv: frame.Rsv1}), 0, errReserved},
		{"continuation of nothing", 1, server(frame.Header{Fin: true, Opcode: frame.Continuation}), 0, errFragment},
		{"a message inside", 1, join(back(m, 0, 299)[:4+299], server(frame.Header{Fin: true, Opcode: frame.Binary})), 0, errFragment},
		{"half a message", 1, back(m, 0, 300)[:200], 0, io.EOF},
	} {
		for _, piece := range []int{1, 3, 1 << 20} {
			s, got, err := play(m, tt.posted, piece, tt.in)
			if !errors.Is(err, tt.want) || len(got) != tt.echoes {
				t.Errorf("%s, %d at a time: got %d echoes and %v, want %d and %v", tt.name, piece, len(got), err, tt.echoes, tt.want)
			}
			for n, due := range got {
				if due != int64(n) {
					t.Errorf("%s: echo %d was due at %d", tt.name, n, due)
				}
			}
			if want := bytes.Contains(tt.in, ping); want != bytes.Contains(unmasked(t, s.out.Bytes()), []byte("you?")) {
				t.Errorf("%s: a ping was answered: %v, want %v", tt.name, !want, want)
			}
		}
	}
}

// unmasked is the payloads of a client's frames.
func unmasked(t *testing.T, b []byte) (payloads []byte) {
	t.Helper()
	for len(b) > 0 {
		h, n, err := frame.ParseHeader(b)
		if err != nil || n == 0 || !h.Masked {
			t.Fatalf("got %+v, %v of the client", h, err)
		}
		payload := bytes.Clone(b[n:][:h.Length])
		frame.Mask(h.Key, 0, payload)
		payloads = append(payloads, payload...)
		b = b[n+int(h.Length):]
	}
	return payloads
}

func TestClientWritesWholeMessages(t *testing.T) {
	for _, size := range []int{1, 7, 8, 9, 300, inlineBytes, 100_000} {
		m := newMessage(size)
		s := &script{piece: 1}
		c := newClient(s, bufio.NewReader(bytes.NewReader(nil)), m, 7, 1)
		c.post(3, 0)
		c.mu.Lock()
		c.flush() // what the sender would do
		c.mu.Unlock()
		var want []byte
		for n := range uint32(3) {
			own := stamp(7, n)
			want = append(want, m.plain...)
			copy(want[len(want)-size:], own[:])
		}
		if got := unmasked(t, s.out.Bytes()); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d bytes that differ from the %d wanted", size, len(got), len(want))
		}
	}
}

func TestClientBoundsWhatIsUnanswered(t *testing.T) {
	c := newClient(&script{piece: 1}, bufio.NewReader(bytes.NewReader(nil)), newMessage(1), 7, 1)
	if err := c.post(maxOwed, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.post(1, 0); !errors.Is(err, errOverloaded) {
		t.Errorf("got %v, want %v", err, errOverloaded)
	}
}

func TestEchoCostsNoAllocation(t *testing.T) {
	m := newMessage(64)
	s := &script{piece: 1 << 10}
	c := newClient(s, bufio.NewReader(bytes.NewReader(nil)), m, 7, 1)
	var number uint32
	echo := back(m, 0, 64)
	if got := testing.AllocsPerRun(1000, func() {
		s.out.Reset()
		c.post(1, 0)
		own := stamp(7, number)
		number++
		copy(echo[2:], own[:])
		s.in = echo
		if times, err := c.receive(); len(times) != 1 || err != nil {
			t.Fatal(times, err)
		}
	}); got != 0 {
		t.Errorf("got %g allocations", got)
	}
}

func FuzzClient(f *testing.F) {
	m := newMessage(20)
	f.Add(back(m, 0, 20), 1)
	f.Add(append(back(m, 0, 3), back(m, 1, 20)...), 2)
	f.Add(frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Ping}, []byte("x")), 100)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		piece = min(max(piece, 1), 1<<20)
		_, whole, err := play(m, 2, 1<<20, in)
		if len(whole) > 2 {
			t.Fatalf("%d echoes of 2 messages", len(whole))
		}
		_, cut, cutErr := play(m, 2, piece, in)
		if len(whole) != len(cut) || (err == io.EOF) != (cutErr == io.EOF) {
			t.Fatalf("whole: %d echoes, %v; cut: %d echoes, %v", len(whole), err, len(cut), cutErr)
		}
	})
}
