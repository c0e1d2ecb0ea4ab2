// Package phoenix speaks Phoenix's Channels protocol: it reads and writes the
// messages of both serializers, and follows the channels of one socket, so
// that they can outlive the server that they were joined at. It does no I/O
// and knows nothing of sessions.
package phoenix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// The events of the protocol itself.
const (
	EventJoin      = "phx_join"
	EventLeave     = "phx_leave"
	EventReply     = "phx_reply"
	EventError     = "phx_error"
	EventClose     = "phx_close"
	EventHeartbeat = "heartbeat"
)

// TopicPhoenix is the topic of heartbeats, which is never joined.
const TopicPhoenix = "phoenix"

// The statuses of a reply.
const (
	StatusOK    = "ok"
	StatusError = "error"
)

// ErrMalformed says that something is no message of the protocol. The server
// gives a socket up that sends such.
var ErrMalformed = errors.New("not a message of the Channels protocol")

// ErrAmbiguous is an ErrMalformed of a message that has one of its keys twice:
// Phoenix's parser takes the first, and most others the last.
var ErrAmbiguous = fmt.Errorf("%w: a key twice", ErrMalformed)

// Message is one message. What is decoded aliases what it was decoded from.
type Message struct {
	// JoinRef and Ref are JSON values as they came, mostly strings; nil is
	// null or none.
	JoinRef, Ref []byte
	Topic, Event []byte
	// Payload is a JSON value, or any bytes where Binary says so.
	Payload []byte
	Binary  bool
	// Status is that of a reply whose payload is binary, and otherwise in
	// the payload.
	Status []byte
}

// FromClient decodes a message that a client sends. Servers go by the
// serializer that was chosen, and some by the type of the frame; the shape
// alone tells what can be meant, so that nothing that a server would
// understand passes for something else here.
func FromClient(data []byte) (Message, error) {
	if len(data) > 0 && data[0] == kindPush {
		return decodeClientPush(data)
	}
	return decodeText(data)
}

// FromServer decodes a message that a server sends.
func FromServer(data []byte) (Message, error) {
	if len(data) > 0 && data[0] <= kindBroadcast {
		return decodeServerBinary(data)
	}
	return decodeText(data)
}

// Is reports whether the message's event is the one named.
func (m *Message) Is(event string) bool { return string(m.Event) == event }

// IsHeartbeat reports whether the message is a client's heartbeat.
func (m *Message) IsHeartbeat() bool {
	return m.Is(EventHeartbeat) && string(m.Topic) == TopicPhoenix
}

// ReplyStatus is the status of a reply, or empty.
func (m *Message) ReplyStatus() string {
	switch {
	case !m.Is(EventReply):
		return ""
	case m.Binary:
		return string(m.Status)
	}
	// A map, and not a struct, whose fields would be found in any case.
	var payload map[string]json.RawMessage
	var status string
	if json.Unmarshal(m.Payload, &payload) != nil || json.Unmarshal(payload["status"], &status) != nil {
		return ""
	}
	return status
}

// sameRef reports whether two refs are the same. The binary forms have room
// for strings alone, so that 1 and "1" are.
func sameRef(a, b []byte) bool { return bytes.Equal(bare(a), bare(b)) }

// bare is a ref without its quotes.
func bare(ref []byte) []byte {
	if len(ref) >= 2 && ref[0] == '"' {
		return ref[1 : len(ref)-1]
	}
	return ref
}
