package proxy

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// checkForm says what is wrong with the form of a request that net/http has
// let through: what a backend might read differently than we do. Most of
// what RFC 9112 tells servers to refuse has been refused before.
func checkForm(r *http.Request) *Problem {
	if r.Method == http.MethodConnect {
		return badRequest("tunnels are not made here")
	}
	if !validAuthority(r.Host) {
		return badRequest("the Host is malformed")
	}
	if scheme, _, absolute := strings.Cut(r.RequestURI, "://"); absolute && !strings.HasPrefix(scheme, "/") {
		// RFC 9112 section 3.2.2: its host takes the place of the Host field,
		// and its path goes up.
		if _, ok := schemeOf(scheme); !ok {
			return badRequest("the request target has another scheme than http and https")
		}
	}
	for _, name := range single {
		if len(r.Header[name]) > 1 {
			return badRequest("the request has more than one " + name)
		}
	}
	return nil
}

// single are fields that a request has once, and by which somebody decides:
// which of two a backend reads is anybody's guess. Those of the WebSocket
// handshake and of the framing are checked where they are read.
var single = []string{"Authorization", "Content-Type", "Origin"}

// closesAfter says whether a request must be the last on its connection. One
// in chunks may have had a Content-Length beside its Transfer-Encoding:
// net/http has followed the latter and thrown the former away, but whoever
// sent it may take the bytes that follow for a part of this request (RFC 9112
// section 6.1). One of HTTP/1.0 may have had a Transfer-Encoding, which is
// thrown away as silently.
func closesAfter(r *http.Request) bool { return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) }

// validAuthority says whether a Host field is a name or an address, with or
// without a port (RFC 9110 section 7.2). It may be empty.
func validAuthority(host string) bool {
	if host == "" {
		return true
	}
	name, port := splitPort(host)
	if strings.HasSuffix(host, ":") {
		port = "0" // RFC 3986 section 3.2.3 lets it be empty
	}
	if port != "" {
		for i := range len(port) {
			if port[i] < '0' || port[i] > '9' {
				return false
			}
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	if name == "" || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return true
}
