package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/stentproxy/stent/proxy/field"
)

// Handshake is one client's opening handshake (RFC 6455 section 4.1) as it
// goes up. The proxy builds it once for a session and keeps it for redials;
// a Dial does not change it.
type Handshake struct {
	// RequestURI is the path and query as the client sent them, without what
	// strip_prefix took away. The target's own path is put in front.
	RequestURI string
	// Host is the Host header; empty means the target's own.
	Host string
	// Header is complete header lines, each ended by CRLF, without Host,
	// Upgrade, Connection, Sec-WebSocket-Key and Sec-WebSocket-Version: those
	// are written by Dial, with a new key each time.
	Header []byte
	// Extra is more lines of the same form, for what changes from dial to
	// dial.
	Extra []byte
	// Each, where set, appends more lines of the same form, for what changes
	// from one request to the next, such as Stent-Attempt: a Dial that tries
	// several targets makes several requests.
	Each func(b []byte) []byte

	// ID and IP are the client's socket id and address, for balance: hash.
	// The other hash keys are found in RequestURI and Header.
	ID, IP string

	// Redial says that the client has its 101 already: a refusal that is
	// Passing is then a failed attempt, and the next target is tried, instead
	// of an answer for the client.
	Redial bool
	// Again says that a Dial for the same session has come to nothing: as at
	// a second attempt, targets whose last dial did are picked last, in turn.
	Again bool
	// Check, where set, looks at a target's 101. An error means that the
	// target does not suit this session: the next one is tried, and the error
	// stays in the chain of what Dial returns. It does not count as a failure
	// of the target.
	Check func(*http.Response) error
	// Prefer is tried first while it is available: the target that a moved
	// session is moved to.
	Prefer *Target
	// Avoid is picked only when nothing else is available: the target that
	// the session has just lost. A hashing pool ignores it, since there the
	// key's home matters more.
	Avoid *Target
}

// affinity returns the value of a hash key for this client, or "".
func (h *Handshake) affinity(k hashKey) string {
	switch k.source {
	case hashID:
		return h.ID
	case hashIP:
		return h.IP
	case hashPath:
		return uriPath(h.RequestURI)
	case hashQuery:
		return uriQuery(h.RequestURI, k.name)
	case hashHeader:
		if strings.EqualFold(k.name, "Host") {
			return h.Host
		}
		return firstLine(h.Header, k.name)
	case hashCookie:
		return cookieValue(lineValues(h.Header, "Cookie"), k.name)
	}
	return ""
}

// HTTPRequest is what RoundTrip balances a plain request by. Its fields mean
// what they mean in Handshake.
type HTTPRequest struct {
	RequestURI, Host string
	Header           http.Header
	ID, IP           string
}

// affinity returns the value of a hash key for this request, or "".
func (r *HTTPRequest) affinity(k hashKey) string {
	switch k.source {
	case hashID:
		return r.ID
	case hashIP:
		return r.IP
	case hashPath:
		return uriPath(r.RequestURI)
	case hashQuery:
		return uriQuery(r.RequestURI, k.name)
	case hashHeader:
		if strings.EqualFold(k.name, "Host") {
			return r.Host
		}
		return r.Header.Get(k.name)
	case hashCookie:
		return cookieValue(r.Header["Cookie"], k.name)
	}
	return ""
}

// check refuses what would not stay one request on the wire.
func (h *Handshake) check() error {
	if u := h.RequestURI; u != "" && u[0] != '/' && u[0] != '?' {
		return fmt.Errorf("request URI %q is not a path", u)
	}
	if strings.ContainsFunc(h.RequestURI, breaksLine) || strings.ContainsFunc(h.Host, breaksLine) {
		return errors.New("request URI or host holds a space or a control character")
	}
	for _, lines := range [][]byte{h.Header, h.Extra} {
		if len(lines) > 0 && !bytes.HasSuffix(lines, []byte("\r\n")) {
			return errors.New("header lines do not end in CRLF")
		}
		if bytes.Count(lines, []byte("\n")) != bytes.Count(lines, []byte("\r\n")) {
			return errors.New("header lines hold a bare line feed")
		}
		if bytes.HasPrefix(lines, []byte("\r\n")) || bytes.Contains(lines, []byte("\r\n\r\n")) {
			return errors.New("header lines hold an empty line")
		}
	}
	return nil
}

func breaksLine(r rune) bool { return r <= ' ' || r == 0x7f }

// appendRequest writes the handshake for a target whose own path is prefix
// and whose Host is host.
func (h *Handshake) appendRequest(b []byte, prefix, host, key string) []byte {
	b = append(b, "GET "...)
	b = append(b, prefix...)
	if !strings.HasPrefix(h.RequestURI, "/") && prefix == "" {
		b = append(b, '/')
	}
	b = append(b, h.RequestURI...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if h.Host != "" {
		host = h.Host
	}
	b = append(b, host...)
	b = append(b, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	b = append(b, key...)
	b = append(b, "\r\n"...)
	b = append(b, h.Header...)
	b = append(b, h.Extra...)
	if h.Each != nil {
		b = h.Each(b)
	}
	return append(b, "\r\n"...)
}

// offered returns the comma-separated elements of every line called name.
func (h *Handshake) offered(name string) []string {
	var all []string
	for _, lines := range [][]byte{h.Header, h.Extra} {
		all = slices.AppendSeq(all, field.Elements(lineValues(lines, name)))
	}
	return all
}

// lineValues returns the values of every header line called name.
func lineValues(lines []byte, name string) []string {
	var values []string
	for line := range bytes.SplitSeq(lines, []byte("\r\n")) {
		k, v, ok := bytes.Cut(line, []byte(":"))
		if ok && len(k) == len(name) && strings.EqualFold(string(k), name) {
			values = append(values, string(textproto.TrimBytes(v)))
		}
	}
	return values
}

func firstLine(lines []byte, name string) string {
	if v := lineValues(lines, name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// uriPath returns the path of a request URI, as sent.
func uriPath(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return path
}

// uriQuery returns the first value of a query parameter. Unlike url.Query it
// reads a query that holds a semicolon.
func uriQuery(uri, name string) string {
	_, query, _ := strings.Cut(uri, "?")
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if k, err := url.QueryUnescape(k); err != nil || k != name {
			continue
		}
		if plain, err := url.QueryUnescape(v); err == nil {
			return plain
		}
		return v
	}
	return ""
}

func cookieValue(lines []string, name string) string {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			k, v, ok := strings.Cut(pair, "=")
			if ok && textproto.TrimString(k) == name {
				return textproto.TrimString(v)
			}
		}
	}
	return ""
}
