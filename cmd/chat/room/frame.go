package room

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The events that the protocol itself gives a meaning.
const (
	eventJoin      = "phx_join"
	eventLeave     = "phx_leave"
	eventReply     = "phx_reply"
	eventClose     = "phx_close"
	eventError     = "phx_error"
	eventHeartbeat = "heartbeat"

	systemTopic = "phoenix"
)

// Bounds of what a client may send beside the size of a message.
const (
	maxRef   = 64
	maxTopic = 255
	maxEvent = 255
)

// Frame is one message of the protocol.
type Frame struct {
	// JoinRef names the join that the message belongs to, and Ref the
	// message; nil is null.
	JoinRef, Ref *string
	Topic, Event string
	// Payload is JSON; of a binary push it is nil, and Binary has the bytes.
	Payload json.RawMessage
	Binary  []byte
}

// errFrame is what is wrong with a message that is no frame at all.
var errFrame = errors.New("want [join_ref, ref, topic, event, payload]")

// ParseFrame reads a text message: a JSON array of five. Like Phoenix it
// ignores what follows the payload.
func ParseFrame(data []byte) (Frame, error) {
	if !utf8.Valid(data) {
		return Frame{}, fmt.Errorf("parse frame: %w", errFrame)
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) < 5 {
		return Frame{}, fmt.Errorf("parse frame: %w", errFrame)
	}
	var f Frame
	for i, into := range []any{&f.JoinRef, &f.Ref, &f.Topic, &f.Event} {
		if i > 1 && bytes.Equal(parts[i], []byte("null")) {
			return Frame{}, fmt.Errorf("parse frame: %w", errFrame)
		}
		if err := json.Unmarshal(parts[i], into); err != nil {
			return Frame{}, fmt.Errorf("parse frame: %w", errFrame)
		}
	}
	f.Payload = parts[4]
	return f, f.check()
}

// binaryPush is the kind byte of the one binary form that clients send.
const binaryPush = 0

// ParseBinary reads a binary message: a kind, four lengths of a byte each,
// the four texts and the payload.
func ParseBinary(data []byte) (Frame, error) {
	if len(data) < 5 || data[0] != binaryPush {
		return Frame{}, errors.New("parse frame: not a binary push")
	}
	sizes, rest := data[1:5], data[5:]
	var texts [4]string
	for i, size := range sizes {
		if len(rest) < int(size) {
			return Frame{}, errors.New("parse frame: binary push is cut short")
		}
		texts[i], rest = string(rest[:size]), rest[size:]
		if !utf8.ValidString(texts[i]) {
			return Frame{}, errors.New("parse frame: binary push is not UTF-8")
		}
	}
	f := Frame{Topic: texts[2], Event: texts[3], Binary: rest}
	if texts[0] != "" {
		f.JoinRef = &texts[0]
	}
	if texts[1] != "" {
		f.Ref = &texts[1]
	}
	return f, f.check()
}

func (f Frame) check() error {
	for _, ref := range []*string{f.JoinRef, f.Ref} {
		if ref != nil && len(*ref) > maxRef {
			return errors.New("parse frame: a ref is too long")
		}
	}
	if f.Topic == "" || len(f.Topic) > maxTopic || f.Event == "" || len(f.Event) > maxEvent {
		return errors.New("parse frame: topic or event is empty or too long")
	}
	return nil
}

// Encode returns the frame as a text message.
func (f Frame) Encode() ([]byte, error) {
	payload := any(f.Payload)
	if f.Payload == nil {
		payload = struct{}{}
	}
	data, err := json.Marshal([]any{f.JoinRef, f.Ref, f.Topic, f.Event, payload})
	if err != nil {
		return nil, fmt.Errorf("encode %s of %s: %w", f.Event, f.Topic, err)
	}
	return data, nil
}

// EncodeBinary returns the frame as a client's binary push.
func (f Frame) EncodeBinary() ([]byte, error) {
	texts := [4]string{2: f.Topic, 3: f.Event}
	if f.JoinRef != nil {
		texts[0] = *f.JoinRef
	}
	if f.Ref != nil {
		texts[1] = *f.Ref
	}
	data := []byte{binaryPush}
	for _, text := range texts {
		if len(text) > 255 {
			return nil, errors.New("encode frame: a text is too long for the binary form")
		}
		data = append(data, byte(len(text)))
	}
	for _, text := range texts {
		data = append(data, text...)
	}
	return append(data, f.Binary...), nil
}

// phxRef is a short name of a presence, as Phoenix makes them.
func phxRef(n uint64) string {
	return fmt.Sprintf("%x", binary.BigEndian.AppendUint64(nil, n))
}
