package plug

import (
	"fmt"
	"net/http"
	"strings"
)

// checkField refuses names that are no field names (RFC 9110 section 5.1),
// and fields by which stent itself speaks with the peer: a pipeline that
// changed them would break the connection rather than the message.
func checkField(name string) error {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isTokenChar(c) }) {
		return fmt.Errorf("%q is not a header field name", name)
	}
	switch canonical := http.CanonicalHeaderKey(name); canonical {
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return fmt.Errorf("%s is set by stent itself", canonical)
	default:
		if strings.HasPrefix(canonical, "Sec-Websocket-") || strings.HasPrefix(canonical, "Stent-") {
			return fmt.Errorf("%s is set by stent itself", canonical)
		}
	}
	return nil
}

// checkFieldValue refuses a value that could end its line, or that a peer may
// refuse (RFC 9110 section 5.5).
func checkFieldValue(name, value string) error {
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return fmt.Errorf("the value of %s holds a control character", name)
	}
	return nil
}

// isTokenChar says whether c is a tchar (RFC 9110 section 5.6.2).
func isTokenChar(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}
