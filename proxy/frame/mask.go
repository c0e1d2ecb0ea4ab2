package frame

import "encoding/binary"

// Mask masks or unmasks b in place (RFC 6455 section 5.3). Offset is the
// position of b[0] in its frame's payload.
func Mask(key [4]byte, offset int, b []byte) {
	k := rotate(key, offset)
	if len(b) >= 8 {
		wide := uint64(k)<<32 | uint64(k)
		for len(b) >= 32 {
			w := b[:32:32]
			binary.LittleEndian.PutUint64(w[0:], binary.LittleEndian.Uint64(w[0:])^wide)
			binary.LittleEndian.PutUint64(w[8:], binary.LittleEndian.Uint64(w[8:])^wide)
			binary.LittleEndian.PutUint64(w[16:], binary.LittleEndian.Uint64(w[16:])^wide)
			binary.LittleEndian.PutUint64(w[24:], binary.LittleEndian.Uint64(w[24:])^wide)
			b = b[32:]
		}
		for len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
			b = b[8:]
		}
	}
	for i := range b {
		b[i] ^= byte(k >> (8 * (i & 3)))
	}
}

// rotate returns the key as a little-endian word that starts at offset.
func rotate(key [4]byte, offset int) uint32 {
	k := binary.LittleEndian.Uint32(key[:])
	r := uint(offset&3) * 8
	return k>>r | k<<(32-r)
}
