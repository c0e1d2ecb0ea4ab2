package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// naiveMask is RFC 6455 section 5.3 as it is written.
func naiveMask(key [4]byte, offset int, b []byte) {
	for i := range b {
		b[i] ^= key[(offset+i)%4]
	}
}

func TestMask(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	memory := make([]byte, 256)
	for _, key := range [][4]byte{{0, 0, 0, 0}, {1, 2, 3, 4}, {0xff, 0xfe, 0xfd, 0xfc}} {
		for align := range 9 {
			for offset := range 9 {
				for length := range 140 {
					for i := range memory {
						memory[i] = byte(rnd.Uint32())
					}
					want := bytes.Clone(memory)
					naiveMask(key, offset, want[align:align+length])
					Mask(key, offset, memory[align:align+length])
					if !bytes.Equal(memory, want) {
						t.Fatalf("key %x, %d bytes at offset %d, aligned %d: got %x, want %x", key, length, offset, align, memory, want)
					}
				}
			}
		}
	}
}

func TestMaskInPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	key := [4]byte{9, 8, 7, 6}
	for range 2000 {
		b := make([]byte, rnd.IntN(300))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		want := bytes.Clone(b)
		naiveMask(key, 0, want)
		for at := 0; at < len(b); {
			n := 1 + rnd.IntN(len(b)-at)
			Mask(key, at, b[at:at+n])
			at += n
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("got %x, want %x", b, want)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{16, 64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				Mask([4]byte{1, 2, 3, 4}, 1, p)
			}
		})
	}
}
