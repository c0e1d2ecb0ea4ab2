package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// errTooComplex is of JSON that is not decoded though it may be valid: rules
// must not take it for a text that is no JSON, since a backend may decode it.
var errTooComplex = errors.New("message too complex to check")

const (
	// maxValues bounds what a JSON text may become: a value of two bytes
	// takes up to some hundred when it is decoded.
	maxValues = 100_000
	// maxDepth bounds its nesting, well below the 10,000 levels at which
	// encoding/json refuses a text: whatever that refuses is then malformed.
	maxDepth = 1000
)

var (
	errTooMany = fmt.Errorf("%w: more than %d values", errTooComplex, maxValues)
	errTooDeep = fmt.Errorf("%w: more than %d levels", errTooComplex, maxDepth)
	// Of equal keys the last counts here, and the first elsewhere.
	errEqualKeys = fmt.Errorf("%w: an object with equal keys", errTooComplex)
)

// decode returns the JSON value in data.
func decode(data []byte) (any, error) {
	members, err := measure(data)
	if err != nil {
		return nil, err
	}
	from := json.NewDecoder(bytes.NewReader(data))
	from.UseNumber()
	var value any
	if err := from.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := from.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	value, left := numbers(value)
	if left < members {
		return nil, errEqualKeys
	}
	return value, nil
}

// fromJSON takes the place of expr's own, which decodes whatever it gets.
func fromJSON(args ...any) (any, error) { return decode([]byte(args[0].(string))) }

// measure refuses a list or an object that would take too much to decode, and
// counts the members of all objects. It counts what separates values, which
// bounds their number, and looks for nothing else: that a text is malformed
// is for the decoder to say.
func measure(data []byte) (members int, err error) {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 || data[0] != '[' && data[0] != '{' {
		return 0, nil
	}
	values, depth := 1, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case ',':
			values++
		case ':':
			members++
		case '[', '{':
			values++
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return members, nil
			}
		}
		switch {
		case values > maxValues:
			return 0, errTooMany
		case depth > maxDepth:
			return 0, errTooDeep
		}
	}
	return members, nil
}

// numbers turns the numbers inside v into int where they are whole and fit,
// since identifiers above 2^53 would lose their last digits as float64, and
// into float64 otherwise. It counts the members of all objects on its way.
func numbers(v any) (_ any, members int) {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return int(i), 0
		}
		if f, err := v.Float64(); err == nil {
			return f, 0
		}
	case []any:
		for i := range v {
			value, n := numbers(v[i])
			v[i], members = value, members+n
		}
	case map[string]any:
		members = len(v)
		for k := range v {
			value, n := numbers(v[k])
			v[k], members = value, members+n
		}
	}
	return v, members
}
