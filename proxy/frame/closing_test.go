package frame

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseClose(t *testing.T) {
	tests := []struct {
		name   string
		in     []byte
		code   int
		reason string
		err    error
	}{
		{"nothing", nil, NoCode, "", nil},
		{"one byte", wire(3), 0, "", errCloseLength},
		{"a code", wire(3, 0xe8), 1000, "", nil},
		{"a code and a reason", wire(3, 0xe9, "bye"), 1001, "bye", nil},
		{"a reason that is not UTF-8", wire(3, 0xe8, 0xff), 1000, "\xff", nil},
		{"999", wire(3, 0xe7), 999, "", errCloseCode},
		{"0", wire(0, 0), 0, "", errCloseCode},
		{"1004", wire(3, 0xec), 1004, "", errCloseCode},
		{"1005", wire(3, 0xed), 1005, "", errCloseCode},
		{"1006", wire(3, 0xee), 1006, "", errCloseCode},
		{"1014", wire(3, 0xf6), 1014, "", nil},
		{"1015", wire(3, 0xf7), 1015, "", errCloseCode},
		{"1016", wire(3, 0xf8), 1016, "", errCloseCode},
		{"2999", wire(0x0b, 0xb7), 2999, "", errCloseCode},
		{"3000", wire(0x0b, 0xb8), 3000, "", nil},
		{"4999", wire(0x13, 0x87), 4999, "", nil},
		{"5000", wire(0x13, 0x88), 5000, "", errCloseCode},
		{"65535", wire(0xff, 0xff), 65535, "", errCloseCode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, reason, err := ParseClose(tt.in)
			if code != tt.code || string(reason) != tt.reason || err != tt.err {
				t.Errorf("got %d, %q, %v, want %d, %q, %v", code, reason, err, tt.code, tt.reason, tt.err)
			}
		})
	}
}

func TestValidCode(t *testing.T) {
	registered := map[int]bool{1000: true, 1001: true, 1002: true, 1003: true, 1007: true, 1008: true, 1009: true,
		1010: true, 1011: true, 1012: true, 1013: true, 1014: true}
	for code := -1; code < 70000; code++ {
		if want := registered[code] || code >= 3000 && code < 5000; ValidCode(code) != want {
			t.Errorf("%d: got %v, want %v", code, !want, want)
		}
	}
}

func TestAppendClose(t *testing.T) {
	tests := []struct {
		name   string
		code   int
		reason string
		want   []byte
	}{
		{"no code", NoCode, "said for nothing", nil},
		{"0", 0, "said for nothing", nil},
		{"a code", 1000, "", wire(3, 0xe8)},
		{"a reason", 1001, "bye", wire(3, 0xe9, "bye")},
		{"123 bytes", 1001, strings.Repeat("x", 123), wire(3, 0xe9, strings.Repeat("x", 123))},
		{"124 bytes", 1001, strings.Repeat("x", 124), wire(3, 0xe9, strings.Repeat("x", 123))},
		{"a rune across the end", 1001, strings.Repeat("x", 122) + "é", wire(3, 0xe9, strings.Repeat("x", 122))},
		{"four bytes across the end", 1001, strings.Repeat("x", 120) + "😀", wire(3, 0xe9, strings.Repeat("x", 120))},
		{"no rune at all", 1001, strings.Repeat("\x80", 200), wire(3, 0xe9)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := AppendClose([]byte("before"), tt.code, tt.reason); !bytes.Equal(got, wire("before", tt.want)) {
				t.Errorf("got %x, want %x", got, tt.want)
			}
		})
	}
}

func FuzzClose(f *testing.F) {
	f.Add(wire(3, 0xe8, "bye"), "a reason")
	f.Add(wire(3), strings.Repeat("é", 100))
	f.Fuzz(func(t *testing.T, payload []byte, reason string) {
		code, text, err := ParseClose(payload)
		if err != nil {
			var fe *Error
			if !errors.As(err, &fe) || fe.Code != CodeProtocol {
				t.Fatalf("got %v, want an *Error with 1002", err)
			}
		} else {
			if (len(payload) == 0) != (code == NoCode) || code != NoCode && !ValidCode(code) {
				t.Fatalf("%x: got code %d", payload, code)
			}
			if len(text) <= MaxReason && utf8.Valid(text) {
				if again := AppendClose(nil, code, string(text)); !bytes.Equal(again, payload) {
					t.Fatalf("%x became %x", payload, again)
				}
			}
		}
		cut := CutReason(reason)
		if len(cut) > MaxReason || !strings.HasPrefix(reason, cut) || utf8.ValidString(reason) && !utf8.ValidString(cut) {
			t.Fatalf("%q was cut to %q", reason, cut)
		}
	})
}
