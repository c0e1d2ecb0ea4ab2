package frame

import (
	"encoding/binary"
	"unicode/utf8"
)

// MaxReason is the longest reason that a close frame holds beside its code,
// in bytes.
const MaxReason = MaxControl - 2

// NoCode stands for a close frame without a body. It is never on the wire
// (RFC 6455 section 7.4.1).
const NoCode = 1005

// ParseClose reads the unmasked payload of a close frame. An empty one is
// NoCode. The reason is not checked to be UTF-8.
func ParseClose(payload []byte) (code int, reason []byte, err error) {
	switch len(payload) {
	case 0:
		return NoCode, nil, nil
	case 1:
		return 0, nil, errCloseLength
	}
	code = int(binary.BigEndian.Uint16(payload))
	if !ValidCode(code) {
		return code, nil, errCloseCode
	}
	return code, payload[2:], nil
}

// ValidCode reports whether an endpoint may send code in a close frame: the
// registered codes but 1004, 1005, 1006 and 1015, and 3000 to 4999 (RFC 6455
// section 7.4, IANA's registry).
func ValidCode(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	default:
		return code >= 3000 && code <= 4999
	}
}

// AppendClose appends the payload of a close frame, its reason cut to
// MaxReason bytes at a rune's start. NoCode and 0 give an empty payload.
func AppendClose(dst []byte, code int, reason string) []byte {
	if code == 0 || code == NoCode {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, CutReason(reason)...)
}

// CutReason cuts a reason to MaxReason bytes at a rune's start.
func CutReason(reason string) string {
	if len(reason) <= MaxReason {
		return reason
	}
	end := MaxReason
	for end > 0 && !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
