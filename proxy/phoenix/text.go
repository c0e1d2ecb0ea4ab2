package phoenix

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Version is one of the serializers, as the client chooses it with vsn.
type Version uint8

// The versions. The zero value is what a client that says nothing gets.
const (
	V1 Version = iota // maps
	V2                // arrays, and binary forms
)

// decodeText decodes JSON: an array is version 2, [join_ref, ref, topic,
// event, payload] and whatever follows, a map is version 1. It skips over
// values without checking them, which is the server's to do.
func decodeText(data []byte) (Message, error) {
	s := scanner{rest: data}
	switch s.peek() {
	case '[':
		return decodeArray(&s)
	case '{':
		return decodeMap(&s)
	}
	return Message{}, ErrMalformed
}

// The parts of a message, in the order of version 2.
const (
	partJoinRef = iota
	partRef
	partTopic
	partEvent
	partPayload
	parts
)

func decodeArray(s *scanner) (m Message, err error) {
	var part [parts][]byte
	s.take()
	for i := range part {
		if i > 0 && s.peek() != ',' {
			return m, ErrMalformed
		} else if i > 0 {
			s.take()
		}
		if part[i] = s.value(); part[i] == nil {
			return m, ErrMalformed
		}
	}
	if end := s.peek(); end != ',' && end != ']' {
		return m, ErrMalformed
	}
	return message(part), nil
}

func decodeMap(s *scanner) (m Message, err error) {
	var part [parts][]byte
	s.take()
	for first := true; s.peek() != '}'; first = false {
		if !first {
			if s.peek() != ',' {
				return m, ErrMalformed
			}
			s.take()
		}
		if s.peek() != '"' {
			return m, ErrMalformed
		}
		key := s.value()
		if key == nil || s.peek() != ':' {
			return m, ErrMalformed
		}
		s.take()
		value := s.value()
		if value == nil {
			return m, ErrMalformed
		}
		i := partOf(text(key))
		if i < 0 {
			continue
		}
		if part[i] != nil {
			return m, ErrAmbiguous
		}
		part[i] = value
	}
	if part[partTopic] == nil || part[partEvent] == nil || part[partPayload] == nil {
		return m, ErrMalformed
	}
	return message(part), nil
}

// partOf is the part that a key of version 1 names, or -1.
func partOf(key []byte) int {
	switch string(key) {
	case "join_ref":
		return partJoinRef
	case "ref":
		return partRef
	case "topic":
		return partTopic
	case "event":
		return partEvent
	case "payload":
		return partPayload
	}
	return -1
}

func message(part [parts][]byte) Message {
	return Message{
		JoinRef: ref(part[partJoinRef]), Ref: ref(part[partRef]),
		Topic: text(part[partTopic]), Event: text(part[partEvent]), Payload: part[partPayload],
	}
}

// ref is a ref as it is kept and compared: a string without needless escapes,
// and anything else as it came.
func ref(value []byte) []byte {
	if value == nil || string(value) == "null" {
		return nil
	}
	if s, ok := unescape(value); ok {
		return appendString(nil, s)
	}
	return value
}

// text is what a JSON string says. What is no string, and what can't be read
// as one, stays as it is: a server knows it by no name either.
func text(value []byte) []byte {
	if s, ok := unescape(value); ok {
		return s
	}
	if value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return value
	}
	return value[1 : len(value)-1 : len(value)-1]
}

// unescape is what a JSON string with escapes says; it is not ok where value
// is no string, has no escapes, or has some that mean nothing.
func unescape(value []byte) ([]byte, bool) {
	if value[0] != '"' || bytes.IndexByte(value, '\\') < 0 {
		return nil, false
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return nil, false
	}
	return []byte(s), true
}

// scanner steps over JSON values.
type scanner struct{ rest []byte }

// peek returns the next byte that is no space, or 0.
func (s *scanner) peek() byte {
	for len(s.rest) > 0 {
		switch c := s.rest[0]; c {
		case ' ', '\t', '\r', '\n':
			s.rest = s.rest[1:]
		default:
			return c
		}
	}
	return 0
}

// take steps over what peek has shown.
func (s *scanner) take() { s.rest = s.rest[1:] }

// value returns the next value, or nil where it does not end.
func (s *scanner) value() []byte {
	s.peek()
	depth, at := 0, 0
	for at < len(s.rest) {
		switch s.rest[at] {
		case '"':
			if at = s.afterString(at); at < 0 {
				return nil
			}
			if depth == 0 {
				return s.cut(at)
			}
		case '[', '{':
			depth++
			at++
		case ']', '}':
			if depth == 0 {
				return s.cut(at)
			}
			depth--
			at++
			if depth == 0 {
				return s.cut(at)
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return s.cut(at)
			}
			at++
		default:
			at++
		}
	}
	return nil // a message never ends with a value
}

// cut takes the value that ends at n.
func (s *scanner) cut(n int) []byte {
	if n == 0 {
		return nil
	}
	value := s.rest[:n:n]
	s.rest = s.rest[n:]
	return value
}

// afterString returns where the string ends that begins at n, or -1.
func (s *scanner) afterString(n int) int {
	for start := n + 1; ; n++ {
		i := bytes.IndexByte(s.rest[n+1:], '"')
		if i < 0 {
			return -1
		}
		n += i
		slashes := 0
		for n-slashes >= start && s.rest[n-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return n + 2
		}
	}
}

// AppendText appends a message with a JSON payload as a version writes it.
// Version 1 has no join_ref.
func AppendText(dst []byte, v Version, m *Message) []byte {
	if v == V1 {
		dst = appendString(append(dst, `{"topic":`...), m.Topic)
		dst = appendString(append(dst, `,"event":`...), m.Event)
		dst = append(append(dst, `,"payload":`...), m.Payload...)
		dst = appendRef(append(dst, `,"ref":`...), m.Ref)
		return append(dst, '}')
	}
	dst = appendRef(append(dst, '['), m.JoinRef)
	dst = appendRef(append(dst, ','), m.Ref)
	dst = appendString(append(dst, ','), m.Topic)
	dst = appendString(append(dst, ','), m.Event)
	dst = append(append(dst, ','), m.Payload...)
	return append(dst, ']')
}

func appendRef(dst, ref []byte) []byte {
	if ref == nil {
		return append(dst, "null"...)
	}
	return append(dst, ref...)
}

// appendString appends s as a JSON string.
func appendString(dst, s []byte) []byte {
	plain := utf8.Valid(s)
	for _, c := range s {
		if c < 0x20 || c == '"' || c == '\\' {
			plain = false
		}
	}
	if !plain {
		quoted, _ := json.Marshal(string(s)) // of a string: no error
		return append(dst, quoted...)
	}
	return append(append(append(dst, '"'), s...), '"')
}
