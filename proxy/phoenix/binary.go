package phoenix

import "fmt"

// The kinds of binary messages, of version 2 only.
const (
	kindPush = iota
	kindReply
	kindBroadcast
)

// maxField is the longest string that a binary message has room for.
const maxField = 255

// decodeClientPush decodes
//
//	0, |join_ref|, |ref|, |topic|, |event|, join_ref, ref, topic, event, payload
func decodeClientPush(data []byte) (m Message, err error) {
	var field [4][]byte
	if m.Payload, err = fields(data[1:], field[:]); err != nil {
		return Message{}, err
	}
	m.Binary = true
	m.JoinRef, m.Ref, m.Topic, m.Event = quoted(field[0]), quoted(field[1]), field[2], field[3]
	return m, nil
}

// decodeServerBinary decodes one of
//
//	0, |join_ref|, |topic|, |event|, join_ref, topic, event, payload
//	1, |join_ref|, |ref|, |topic|, |status|, join_ref, ref, topic, status, payload
//	2, |topic|, |event|, topic, event, payload
func decodeServerBinary(data []byte) (m Message, err error) {
	var field [4][]byte
	kind := data[0]
	n := [...]int{kindPush: 3, kindReply: 4, kindBroadcast: 2}[kind]
	if m.Payload, err = fields(data[1:], field[:n]); err != nil {
		return Message{}, err
	}
	m.Binary = true
	switch kind {
	case kindPush:
		m.JoinRef, m.Topic, m.Event = quoted(field[0]), field[1], field[2]
	case kindReply:
		m.JoinRef, m.Ref, m.Topic, m.Status = quoted(field[0]), quoted(field[1]), field[2], field[3]
		m.Event = []byte(EventReply)
	case kindBroadcast:
		m.Topic, m.Event = field[0], field[1]
	}
	return m, nil
}

// fields cuts off strings whose lengths stand in front, one byte each, and
// returns what follows them.
func fields(data []byte, into [][]byte) (rest []byte, err error) {
	n := len(into)
	if len(data) < n {
		return nil, ErrMalformed
	}
	sizes, rest := data[:n], data[n:]
	for i, size := range sizes {
		if len(rest) < int(size) {
			return nil, ErrMalformed
		}
		into[i], rest = rest[:size:size], rest[size:]
	}
	return rest, nil
}

// quoted is a ref of a binary message as JSON; an empty one is none.
func quoted(ref []byte) []byte {
	if len(ref) == 0 {
		return nil
	}
	return appendString(nil, ref)
}

// AppendClientPush appends a client's binary message.
func AppendClientPush(dst []byte, m *Message) ([]byte, error) {
	return appendBinary(dst, kindPush, m.Payload, bare(m.JoinRef), bare(m.Ref), m.Topic, m.Event)
}

// AppendPush appends a server's binary message to one client.
func AppendPush(dst []byte, m *Message) ([]byte, error) {
	return appendBinary(dst, kindPush, m.Payload, bare(m.JoinRef), m.Topic, m.Event)
}

// AppendReply appends a server's binary reply.
func AppendReply(dst []byte, m *Message) ([]byte, error) {
	return appendBinary(dst, kindReply, m.Payload, bare(m.JoinRef), bare(m.Ref), m.Topic, m.Status)
}

// AppendBroadcast appends a server's binary message to all that have joined.
func AppendBroadcast(dst []byte, m *Message) ([]byte, error) {
	return appendBinary(dst, kindBroadcast, m.Payload, m.Topic, m.Event)
}

func appendBinary(dst []byte, kind byte, payload []byte, fields ...[]byte) ([]byte, error) {
	out := append(dst, kind)
	for _, f := range fields {
		if len(f) > maxField {
			return dst, fmt.Errorf("write a binary message: %.32q… is %d bytes long and may be %d", f, len(f), maxField)
		}
		out = append(out, byte(len(f)))
	}
	for _, f := range fields {
		out = append(out, f...)
	}
	return append(out, payload...), nil
}
