package token

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	jose "github.com/go-jose/go-jose/v4/json"
)

// read checks the claims of a payload at an instant.
func (v *Verifier) read(payload []byte, now time.Time) (*Token, error) {
	// The library's decoder refuses a name that is there twice: of two
	// readers each could believe another value.
	dec := jose.NewDecoder(bytes.NewReader(payload))
	// Its own whole numbers overflow, so that 1e300 would be one below zero.
	dec.SetNumberType(jose.UnmarshalJSONNumber)
	t := &Token{}
	if err := dec.Decode(&t.Claims); err != nil || t.Claims == nil || !numbered(t.Claims) {
		return nil, invalid("is malformed")
	}
	if err := dec.Decode(new(any)); err != io.EOF {
		return nil, invalid("is malformed")
	}
	for _, check := range []func(*Token, time.Time) error{v.checkTimes, v.checkNames, v.checkRequired} {
		if err := check(t, now); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// numbered replaces the texts of numbers in a value by int64 where they are
// whole, and float64 otherwise. It reports false where one is out of range.
func numbered(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			n, ok := number(v)
			if !ok {
				return false
			}
			value[name] = n
		}
	case []any:
		for i, v := range value {
			n, ok := number(v)
			if !ok {
				return false
			}
			value[i] = n
		}
	}
	return true
}

func number(v any) (any, bool) {
	text, ok := v.(jose.Number)
	if !ok {
		return v, numbered(v)
	}
	if n, err := text.Int64(); err == nil {
		return n, true
	}
	f, err := text.Float64()
	return f, err == nil
}

func (v *Verifier) checkTimes(t *Token, now time.Time) error {
	if claim, there := t.Claims["exp"]; there {
		expires, ok := date(claim)
		if !ok {
			return invalid("has no proper exp")
		}
		if !now.Before(expires.Add(v.leeway)) {
			return invalid("has expired")
		}
		t.Expires = expires
	}
	if claim, there := t.Claims["nbf"]; there {
		begins, ok := date(claim)
		if !ok {
			return invalid("has no proper nbf")
		}
		if now.Before(begins.Add(-v.leeway)) {
			return invalid("is not valid yet")
		}
	}
	return nil
}

func (v *Verifier) checkNames(t *Token, _ time.Time) error {
	if claim, there := t.Claims["jti"]; there {
		id, ok := claim.(string)
		if !ok {
			return invalid("has no proper jti")
		}
		t.ID = id
	}
	if v.issuer != "" && t.Claims["iss"] != any(v.issuer) {
		return invalid("is of another issuer")
	}
	if len(v.audience) > 0 && !has(t.Claims["aud"], v.audience) {
		return invalid("is for another audience")
	}
	return nil
}

func (v *Verifier) checkRequired(t *Token, _ time.Time) error {
	for name, values := range v.require {
		claim, there := t.Claims[name]
		if !there || claim == nil {
			return invalid("lacks a claim that is required")
		}
		if len(values) > 0 && !has(claim, values) {
			return invalid("has a claim with another value than is required")
		}
	}
	return nil
}

// has says whether a claim is one of the values, or a list with one of them.
func has(claim any, values []string) bool {
	if list, ok := claim.([]any); ok {
		return slices.ContainsFunc(list, func(one any) bool { return hasOne(one, values) })
	}
	return hasOne(claim, values)
}

func hasOne(claim any, values []string) bool {
	text, ok := Scalar(claim)
	return ok && slices.Contains(values, text)
}

// Scalar returns a string, a whole number or a boolean as text. What a
// fraction is as text depends on who writes it, so that it is none.
func Scalar(claim any) (string, bool) {
	switch claim := claim.(type) {
	case string:
		return claim, true
	case int64:
		return strconv.FormatInt(claim, 10), true
	case bool:
		return strconv.FormatBool(claim), true
	}
	return "", false
}

// Text returns a claim as text: a string as it is, all else as JSON.
func Text(claim any) (string, bool) {
	if text, ok := claim.(string); ok {
		return text, true
	}
	text, err := json.Marshal(claim)
	return string(text), err == nil
}

// latest is the last date that is told apart from later ones: the year 9999.
const latest = 253402300799

// date reads a NumericDate (RFC 7519 section 2), which may have a fraction.
func date(claim any) (time.Time, bool) {
	switch n := claim.(type) {
	case int64:
		return time.Unix(min(max(n, 0), latest), 0), true
	case float64:
		if math.IsNaN(n) {
			return time.Time{}, false
		}
		whole, fraction := math.Modf(min(max(n, 0), latest))
		return time.Unix(int64(whole), int64(fraction*1e9)), true
	}
	return time.Time{}, false
}
