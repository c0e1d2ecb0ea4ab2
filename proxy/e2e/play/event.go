package play

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
)

// Event is one thing that a client's library told it.
type Event struct {
	// Kind is text, binary, pong or close.
	Kind   string
	Data   []byte
	Code   int // 1005 without a code, 1006 without a close frame
	Reason string
}

// String returns e as it stands in a row; long payloads as their length and
// CRC-32.
func (e Event) String() string {
	switch {
	case e.Kind == "close":
		return strings.TrimSpace(fmt.Sprintf("close %d %s", e.Code, e.Reason))
	case e.Kind == "pong", e.Kind == "text" && len(e.Data) <= 512:
		return e.Kind + " " + string(e.Data)
	case e.Kind == "binary" && len(e.Data) <= 64:
		return e.Kind + " " + hex.EncodeToString(e.Data)
	}
	return fmt.Sprintf("%s %d %08x", e.Kind, len(e.Data), crc32.ChecksumIEEE(e.Data))
}

// Pattern returns size bytes that no shift or cut leaves alike.
func Pattern(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i*31 + i>>8)
	}
	return data
}
