package longpoll

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"mime"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy/frame"
)

// Message is one message of a client.
type Message struct {
	Type frame.Opcode // Text or Binary
	Data []byte
}

var (
	errNotUTF8 = errors.New("the body is not UTF-8")
	errEmpty   = errors.New("the body is empty")
)

// Messages reads the body of a POST as Phoenix does: application/x-ndjson has
// a message in each line, JSON as it is and anything else the base64 form of a
// binary one; a body of any other type is one text message. It refuses a bad
// line before any other is used. Lines are decoded as they are asked for, so
// that a body of many small ones takes no more memory than itself.
func Messages(contentType string, body []byte) (iter.Seq[Message], error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/x-ndjson" {
		switch {
		case len(body) == 0:
			return nil, errEmpty
		case !utf8.Valid(body):
			return nil, errNotUTF8
		}
		return func(yield func(Message) bool) { yield(Message{frame.Text, body}) }, nil
	}
	n := 0
	for line := range lines(body) {
		n++
		if isJSON(line) {
			if !utf8.Valid(line) {
				return nil, fmt.Errorf("line %d: %w", n, errNotUTF8)
			}
			continue
		}
		if _, err := base64.StdEncoding.Decode(make([]byte, base64.StdEncoding.DecodedLen(len(line))), line); err != nil {
			return nil, fmt.Errorf("line %d is neither JSON nor base64", n)
		}
	}
	if n == 0 {
		return nil, errEmpty
	}
	return func(yield func(Message) bool) {
		for line := range lines(body) {
			m := Message{frame.Text, line}
			if !isJSON(line) {
				data := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
				size, _ := base64.StdEncoding.Decode(data, line) // as it did above
				m = Message{frame.Binary, data[:size]}
			}
			if !yield(m) {
				return
			}
		}
	}, nil
}

// isJSON says whether a line is a message of one of Phoenix's serializers: an
// array, or an object before version 2. Neither begins like base64.
func isJSON(line []byte) bool { return line[0] == '[' || line[0] == '{' }

// lines are those of body that are not empty.
func lines(body []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.SplitSeq(body, []byte("\n")) {
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) > 0 && !yield(line) {
				return
			}
		}
	}
}
