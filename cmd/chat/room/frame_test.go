package room

import (
	"bytes"
	"reflect"
	"testing"
)

func FuzzParseFrame(f *testing.F) {
	for _, seed := range []string{
		`["1","1","room:lobby","phx_join",{}]`, `[null,"2","phoenix","heartbeat",{}]`, `["1","1","a","b",null,6]`,
		`[1,2,3,4,5]`, `["\ud800","1","a","b",{}]`, `{}`, "[]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseFrame(data)
		if err != nil {
			return
		}
		encoded, err := got.Encode()
		if err != nil {
			t.Fatalf("encode what was parsed: %v", err)
		}
		again, err := ParseFrame(encoded)
		if err != nil {
			t.Fatalf("%s: %v", encoded, err)
		}
		got.Payload, again.Payload = nil, nil // white space may differ
		if !reflect.DeepEqual(got, again) {
			t.Errorf("got %+v, want %+v", again, got)
		}
	})
}

func FuzzParseBinary(f *testing.F) {
	f.Add([]byte("\x00\x01\x01\x01\x0112te\xff\x00"))
	f.Add([]byte{0, 0, 0, 1, 1, 't', 'e'})
	f.Add([]byte{0, 255, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseBinary(data)
		if err != nil {
			return
		}
		again, err := got.EncodeBinary()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("got %x, %v, want %x", again, err, data)
		}
	})
}
