package longpoll

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/stentproxy/stent/proxy/field"
)

const (
	tokenHeader = "X-Phoenix-Longpoll-Token"
	authHeader  = "X-Phoenix-Authtoken"

	// authProtocol comes before an auth token among a WebSocket's
	// subprotocols, and phoenixProtocol beside it.
	authProtocol    = "base64url.bearer.phx."
	phoenixProtocol = "phoenix"

	pathSegment      = "longpoll"
	webSocketSegment = "websocket"
)

// IsPath reports whether a path is that of a long-poll endpoint.
func IsPath(path string) bool { return strings.HasSuffix(path, "/"+pathSegment) }

// Read takes the long-poll token out of r: whatever looks at the request then
// sees what it would see of a WebSocket handshake. A client adds the token
// behind its own parameters, one of which may have the same name, and as
// "null" before it has one. Its auth token is added in the form that a
// WebSocket carries it in.
func Read(r *http.Request) (bare *http.Request, token string) {
	other := *r
	other.Header = r.Header.Clone()
	if other.Header == nil {
		other.Header = make(http.Header)
	}
	address := *r.URL
	other.URL = &address
	if lines := other.Header[tokenHeader]; len(lines) > 0 {
		token = lines[0]
		delete(other.Header, tokenHeader)
	}
	if query, t, ok := cutToken(address.RawQuery); ok {
		if token == "" {
			token = t
		}
		address.RawQuery, address.ForceQuery = query, false
		if target, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			other.RequestURI = target
			if query != "" {
				other.RequestURI += "?" + query
			}
		}
	}
	if auth := other.Header.Get(authHeader); auth != "" {
		lines := other.Header["Sec-Websocket-Protocol"]
		other.Header["Sec-Websocket-Protocol"] = append(lines, phoenixProtocol+", "+authProtocol+base64.RawURLEncoding.EncodeToString([]byte(auth)))
	}
	return &other, token
}

// cutToken takes the long-poll token out of a raw query; all else stays as it
// is, byte for byte. It is the last of that name, unless it is the only one
// and none of ours: that is the client's own.
func cutToken(query string) (rest, token string, ok bool) {
	pairs := strings.Split(query, "&")
	last, count := -1, 0
	for i, pair := range pairs {
		if strings.HasPrefix(pair, "token=") {
			last, count = i, count+1
		}
	}
	if count == 0 {
		return query, "", false
	}
	value := strings.TrimPrefix(pairs[last], "token=")
	if t, err := url.QueryUnescape(value); err == nil {
		value = t
	}
	if count == 1 && !isToken(value) {
		return query, "", false
	}
	return strings.Join(append(pairs[:last:last], pairs[last+1:]...), "&"), value, true
}

// isToken reports whether a client may have had s from a long-poll server, or
// says by it that it has none.
func isToken(s string) bool {
	return s == "" || s == "null" || s == "undefined" || strings.HasPrefix(s, tokenPrefix)
}

// Handshake returns the WebSocket handshake that opens the session of r, which
// Read returned: at the socket's WebSocket path, with the client's query and
// header.
func Handshake(r *http.Request) *http.Request {
	shake := *r
	shake.Method = http.MethodGet
	shake.Proto, shake.ProtoMajor, shake.ProtoMinor = "HTTP/1.1", 1, 1
	shake.Body, shake.ContentLength, shake.TransferEncoding = http.NoBody, 0, nil
	address := *r.URL
	address.Path, address.RawPath = webSocketPath(address.Path), webSocketPath(address.RawPath)
	shake.URL = &address
	if r.RequestURI != "" {
		path, query, found := strings.Cut(r.RequestURI, "?")
		shake.RequestURI = webSocketPath(path)
		if found {
			shake.RequestURI += "?" + query
		}
	}
	h := r.Header.Clone()
	for name := range h {
		if strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "Sec-Websocket-") && name != "Sec-Websocket-Protocol" {
			delete(h, name)
		}
	}
	key := make([]byte, 16)
	rand.Read(key) // never fails
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	h["Sec-Websocket-Version"] = []string{"13"}
	h["Sec-Websocket-Key"] = []string{base64.StdEncoding.EncodeToString(key)}
	shake.Header = h
	return &shake
}

// webSocketPath is the socket's WebSocket path beside its long-poll path.
func webSocketPath(path string) string {
	if base, ok := strings.CutSuffix(path, pathSegment); ok {
		return base + webSocketSegment
	}
	return path
}

// SameAuth keeps the two forms of an auth token together in a header that goes
// up: where a plug has taken one of them out, the other goes, too.
func SameAuth(h http.Header) {
	var rest []string
	found := false
	for element := range field.Elements(h["Sec-Websocket-Protocol"]) {
		if strings.HasPrefix(element, authProtocol) {
			found = true
			continue
		}
		rest = append(rest, element)
	}
	switch {
	case !found:
		delete(h, authHeader)
	case h[authHeader] == nil:
		h["Sec-Websocket-Protocol"] = []string{strings.Join(rest, ", ")}
	default:
		delete(h, authHeader) // the upstream reads it as any WebSocket's
	}
}
