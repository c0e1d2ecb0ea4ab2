package plug

import (
	"net/http"
	"slices"

	"github.com/stentproxy/stent/proxy/field"
)

// hopByHop are the fields that concern one connection (RFC 9110 section
// 7.6.1), whether or not Connection lists them.
var hopByHop = []string{
	"Connection",
	"Http2-Settings",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Proxy-Connection",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// HopByHop says whether a field, in canonical form, concerns one connection.
func HopByHop(name string) bool { return slices.Contains(hopByHop, name) }

// DropHopByHop deletes the fields that concern one connection, and those that
// Connection lists.
func DropHopByHop(h http.Header) {
	for name := range field.Elements(h["Connection"]) {
		h.Del(name)
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}
