package frame

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// wire joins bytes and strings to a stream.
func wire(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func TestParseHeader(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	tests := []struct {
		name string
		in   []byte
		want Header
		n    int
	}{
		{"text of nothing", wire(0x81, 0), Header{Fin: true, Opcode: Text}, 2},
		{"text of 125", wire(0x81, 125), Header{Fin: true, Opcode: Text, Length: 125}, 2},
		{"binary of 126", wire(0x82, 126, 0, 126), Header{Fin: true, Opcode: Binary, Length: 126}, 4},
		{"65535 in 16 bits", wire(0x82, 126, 0xff, 0xff), Header{Fin: true, Opcode: Binary, Length: 65535}, 4},
		{"65536 in 64 bits", wire(0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0), Header{Fin: true, Opcode: Binary, Length: 65536}, 10},
		{"63 bits", wire(0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), Header{Fin: true, Opcode: Binary, Length: math.MaxInt64}, 10},
		{"masked, short", wire(0x81, 0x85, 1, 2, 3, 4), Header{Fin: true, Opcode: Text, Masked: true, Key: key, Length: 5}, 6},
		{"masked, 16 bits", wire(0x81, 0xfe, 0, 200, 1, 2, 3, 4), Header{Fin: true, Opcode: Text, Masked: true, Key: key, Length: 200}, 8},
		{"masked, 64 bits", wire(0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4), Header{Fin: true, Opcode: Text, Masked: true, Key: key, Length: 65536}, 14},
		{"first fragment", wire(0x01, 1), Header{Opcode: Text, Length: 1}, 2},
		{"continuation", wire(0x00, 1), Header{Length: 1}, 2},
		{"last continuation", wire(0x80, 1), Header{Fin: true, Length: 1}, 2},
		{"close", wire(0x88, 2), Header{Fin: true, Opcode: Close, Length: 2}, 2},
		{"ping of 125", wire(0x89, 125), Header{Fin: true, Opcode: Ping, Length: 125}, 2},
		{"pong", wire(0x8a, 0), Header{Fin: true, Opcode: Pong}, 2},
		{"reserved bits", wire(0xf1, 0), Header{Fin: true, Rsv: Rsv1 | Rsv2 | Rsv3, Opcode: Text}, 2},
		{"first reserved bit", wire(0xc1, 0), Header{Fin: true, Rsv: Rsv1, Opcode: Text}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for cut := range tt.in {
				if _, n, err := ParseHeader(tt.in[:cut]); n != 0 || err != nil {
					t.Errorf("of %d bytes: got %d, %v, want to be asked for more", cut, n, err)
				}
			}
			got, n, err := ParseHeader(append(bytes.Clone(tt.in), "payload"...))
			if err != nil || n != tt.n || got != tt.want {
				t.Errorf("got %+v, %d, %v, want %+v, %d", got, n, err, tt.want, tt.n)
			}
			if again := AppendHeader(nil, got); !bytes.Equal(again, tt.in) {
				t.Errorf("appended: got %x, want %x", again, tt.in)
			}
		})
	}
}

// A break of the rules is found with the byte that shows it, not later.
func TestParseHeaderRefuses(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		at   int // bytes that are needed to see it
		want *Error
	}{
		{"fragmented close", wire(0x08, 0), 1, errControlFragmented},
		{"fragmented ping", wire(0x09, 0), 1, errControlFragmented},
		{"fragmented pong", wire(0x0a, 0), 1, errControlFragmented},
		{"ping of 126", wire(0x89, 126, 0, 126), 2, errControlLong},
		{"close of 64 bits", wire(0x88, 127, 0, 0, 0, 0, 0, 1, 0, 0), 2, errControlLong},
		{"125 in 16 bits", wire(0x82, 126, 0, 125), 4, errLengthForm},
		{"nothing in 16 bits", wire(0x82, 126, 0, 0), 4, errLengthForm},
		{"65535 in 64 bits", wire(0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff), 10, errLengthForm},
		{"1 in 64 bits", wire(0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1), 10, errLengthForm},
		{"the highest bit", wire(0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0), 10, errLengthBit},
		{"all bits", wire(0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 10, errLengthBit},
	}
	for op := range 16 {
		switch Opcode(op) {
		case Continuation, Text, Binary, Close, Ping, Pong:
			continue
		}
		tests = append(tests, struct {
			name string
			in   []byte
			at   int
			want *Error
		}{"opcode " + Opcode(op).String(), wire(0x80|op, 0), 1, errOpcode})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for cut := range len(tt.in) + 1 {
				_, n, err := ParseHeader(tt.in[:cut])
				if cut < tt.at && (err != nil || n != 0) {
					t.Errorf("of %d bytes: got %d, %v, want to be asked for more", cut, n, err)
				}
				if cut >= tt.at && err != tt.want {
					t.Errorf("of %d bytes: got %v, want %v", cut, err, tt.want)
				}
			}
			if tt.want.Code != 1002 {
				t.Errorf("code: got %d, want 1002", tt.want.Code)
			}
		})
	}
}

func TestAppendFrame(t *testing.T) {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	tests := []struct {
		name    string
		h       Header
		payload string
		want    []byte
	}{
		// The first five are RFC 6455 section 5.7's.
		{"text", Header{Fin: true, Opcode: Text}, "Hello", wire(0x81, 5, "Hello")},
		{"masked text", Header{Fin: true, Opcode: Text, Masked: true, Key: key}, "Hello", wire(0x81, 0x85, key[:], 0x7f, 0x9f, 0x4d, 0x51, 0x58)},
		{"fragment", Header{Opcode: Text}, "Hel", wire(0x01, 3, "Hel")},
		{"masked pong", Header{Fin: true, Opcode: Pong, Masked: true, Key: key}, "Hello", wire(0x8a, 0x85, key[:], 0x7f, 0x9f, 0x4d, 0x51, 0x58)},
		{"256 bytes", Header{Fin: true, Opcode: Binary}, strings.Repeat("x", 256), wire(0x82, 126, 1, 0, strings.Repeat("x", 256))},
		{"nothing", Header{Fin: true, Opcode: Ping}, "", wire(0x89, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			payload := []byte(tt.payload)
			got := AppendFrame([]byte("before"), tt.h, payload)
			if want := wire("before", tt.want); !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			if string(payload) != tt.payload {
				t.Error("the payload was masked where it lies")
			}
		})
	}
}

func TestErrorIsTyped(t *testing.T) {
	_, _, err := ParseHeader(wire(0x83))
	var fe *Error
	if !errors.As(err, &fe) || fe.Code != CodeProtocol {
		t.Fatalf("got %v, want an *Error with 1002", err)
	}
	if want := "reserved opcode (1002)"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestOpcodeString(t *testing.T) {
	want := map[Opcode]string{0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong", 3: "reserved", 15: "reserved"}
	for op, name := range want {
		if op.String() != name {
			t.Errorf("opcode %d: got %q, want %q", op, op, name)
		}
		if op.Control() != (op >= 8) {
			t.Errorf("opcode %d: Control is %v", op, op.Control())
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(wire(0x81, 0xfe, 0, 200, 1, 2, 3, 4))
	f.Add(wire(0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0))
	f.Add(wire(0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		switch {
		case err != nil:
			var fe *Error
			if n != 0 || !errors.As(err, &fe) || fe.Code != CodeProtocol {
				t.Fatalf("got %d, %v, want 0 and an *Error with 1002", n, err)
			}
			// What follows can't make it good.
			if _, _, err := ParseHeader(append(bytes.Clone(b), 0, 0, 0)); err == nil {
				t.Fatalf("%x was refused and with more bytes is not", b)
			}
		case n == 0:
			if len(b) >= MaxHeader {
				t.Fatalf("asked for more than the longest header: %x", b)
			}
		default:
			if n > len(b) || n > MaxHeader || h.Length < 0 {
				t.Fatalf("%x: got %+v of %d bytes", b, h, n)
			}
			if again := AppendHeader(nil, h); !bytes.Equal(again, b[:n]) {
				t.Fatalf("%x became %x", b[:n], again)
			}
		}
	})
}
