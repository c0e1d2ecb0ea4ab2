package wire

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
)

// Deflate returns data as the payload of a compressed message that needs no
// earlier one (RFC 7692 section 7.2.1).
func Deflate(data []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// Inflater decompresses the messages of one direction (RFC 7692 section
// 7.2.2), keeping the window from one to the next.
type Inflater struct{ window []byte }

// Inflate returns the message in payload.
func (i *Inflater) Inflate(payload []byte) ([]byte, error) {
	tail := io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}))
	data, err := io.ReadAll(flate.NewReaderDict(tail, i.window))
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	i.window = append(i.window, data...)
	i.window = i.window[max(0, len(i.window)-1<<15):]
	return data, nil
}
