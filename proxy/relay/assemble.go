package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"github.com/stentproxy/stent/proxy/frame"
)

// unmask returns the payload of one whole message from its frames. A single
// unmasked frame is returned where it lies; everything else is put together
// in scratch, so that frames stay as they came and can still be forwarded.
func unmask(frames []byte, scratch *gathered) []byte {
	scratch.reset()
	for first := true; len(frames) > 0; first = false {
		h, n, err := frame.ParseHeader(frames)
		if err != nil || n == 0 {
			return scratch.bytes() // not reached: the scanner has seen them all
		}
		payload := frames[n : n+int(h.Length)]
		frames = frames[n+int(h.Length):]
		if first && len(frames) == 0 && !h.Masked {
			return payload
		}
		at := scratch.len()
		scratch.append(payload)
		if h.Masked {
			frame.Mask(h.Key, 0, scratch.bytes()[at:])
		}
	}
	return scratch.bytes()
}

// deflateTail ends a message that was compressed as RFC 7692 section 7.2.1
// says, and then the stream.
var deflateTail = []byte{0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff}

// minDeflate is the payload below which deflating costs more than it saves.
const minDeflate = 64

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflate decompresses data behind dst, whose size is bounded by limit.
func inflate(dst *gathered, data []byte, limit int64) error {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	src := io.MultiReader(bytes.NewReader(data), bytes.NewReader(deflateTail))
	if err := r.(flate.Resetter).Reset(src, nil); err != nil {
		return errDeflate
	}
	chunk := getBuffer(smallBuffer)
	defer chunk.release()
	for {
		n, err := r.Read(chunk.b)
		dst.append(chunk.b[:n])
		switch {
		case limit > 0 && int64(dst.len()) > limit:
			return frame.ErrTooBig
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errDeflate
		}
	}
}

var errDeflate = &frame.Error{Code: frame.CodeInvalid, Reason: "message can't be inflated"}

// deflater is a compressor with the buffer it writes to.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // the level is valid
	return d
}}

// encode appends one message as a single frame: masked for an upstream,
// deflated where that was negotiated and is worth it.
func encode(dst []byte, t frame.Opcode, data []byte, masked, deflate bool) []byte {
	if !deflate || len(data) < minDeflate {
		return appendFrame(dst, t, data, masked, 0)
	}
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out.Reset()
	d.w.Reset(&d.out)
	d.w.Write(data) // to memory: no error
	d.w.Flush()
	packed := bytes.TrimSuffix(d.out.Bytes(), deflateTail[:4])
	if len(packed) >= len(data) {
		return appendFrame(dst, t, data, masked, 0)
	}
	return appendFrame(dst, t, packed, masked, frame.Rsv1)
}

// appendFrame appends a whole final frame of our own.
func appendFrame(dst []byte, op frame.Opcode, payload []byte, masked bool, rsv uint8) []byte {
	h := frame.Header{Fin: true, Rsv: rsv, Opcode: op, Masked: masked}
	if masked {
		rand.Read(h.Key[:])
	}
	return frame.AppendFrame(dst, h, payload)
}

// content is what the headers of a whole message say of its payload.
type content struct {
	kind     frame.Opcode
	deflated bool
	limit    int64 // of what it inflates to
}

// content returns that of the message that just became whole.
func (f *flow) content() content {
	return content{f.scan.Type(), f.scan.Deflated(), f.scan.Limit}
}

// decode returns the payload of one whole message, checked.
func (c content) decode(frames []byte, scratch, inflated *gathered) ([]byte, error) {
	data := unmask(frames, scratch)
	if c.deflated {
		inflated.reset()
		if err := inflate(inflated, data, c.limit); err != nil {
			return nil, err
		}
		data = inflated.bytes()
	}
	if c.kind == frame.Text && !utf8.Valid(data) {
		return nil, frame.ErrUTF8
	}
	return data, nil
}
