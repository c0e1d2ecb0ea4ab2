package proxy

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
	"github.com/stentproxy/stent/proxy/plug"
)

// admit makes the Info of a request from what its peer may be believed, and
// drops the header fields that no client, or no untrusted one, may send. It
// returns r with its Info.
func admit(r *http.Request, trusted []netip.Prefix, owned ownedFields) (*http.Request, *plug.Info) {
	info := &plug.Info{
		Peer: peerOf(r), Scheme: "http", Host: r.Host, Stall: config.DefaultTimeouts().Write.Std(), Withheld: owned.withheld,
	}
	if r.TLS != nil {
		info.Scheme = "https"
	}
	info.Trusted = contains(trusted, info.Peer)
	info.ClientIP = info.Peer
	dropForged(r.Header, info.Trusted, owned)
	dropForged(r.Trailer, info.Trusted, owned)
	withhold(r.Trailer, owned.withheld)
	if info.Trusted {
		info.ClientIP = clientIP(r.Header, info.Peer, trusted)
		if scheme, ok := schemeOf(lastElement(r.Header["X-Forwarded-Proto"])); ok {
			info.Scheme = scheme
		}
		if host := lastElement(r.Header["X-Forwarded-Host"]); host != "" && validAuthority(host) {
			info.Host = host
		}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		info.ClientCert = plug.NewClientCert(r.TLS.PeerCertificates[0])
		if !info.Trusted { // a proxy's name is not its clients'
			info.ID = info.ClientCert.ID()
		}
	}
	return plug.With(r, info), info
}

// dropForged deletes the fields by which a client could pretend to be stent,
// one of its plugs or, unless it is trusted, a proxy. Backends with a CGI
// heritage can't tell "_" from "-" in a name, so neither is told apart here,
// nor in the names of fields that say where a request ends.
func dropForged(h http.Header, trusted bool, owned ownedFields) {
	for sent := range h {
		name := sent
		if strings.IndexByte(name, '_') >= 0 {
			name = field.Fold(name)
			if frames(name) {
				delete(h, sent)
			}
		}
		if owned.set[name] || strings.HasPrefix(name, "Stent-") || !trusted && (owned.believed[name] || saysWho(name)) {
			delete(h, sent)
		}
	}
}

// frames says whether a field decides where a request ends, or for whom it
// is.
func frames(name string) bool {
	switch name {
	case "Content-Length", "Host":
		return true
	}
	return plug.HopByHop(name)
}

// saysWho says whether a field is one in which proxies tell where a request
// comes from.
func saysWho(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// clientIP returns the rightmost untrusted address on the way of a request
// that a trusted peer passed on. An entry that is no address ends the search:
// what stands left of it was written by nobody knows whom.
func clientIP(h http.Header, peer netip.Addr, trusted []netip.Prefix) netip.Addr {
	client := peer
	for _, node := range slices.Backward(hops(h)) {
		addr, ok := parseNode(node)
		if !ok {
			return client
		}
		client = addr
		if !contains(trusted, addr) {
			return client
		}
	}
	return client
}

// hops returns the addresses that proxies noted, the farthest first:
// X-Forwarded-For where there is one, else Forwarded (RFC 7239), else
// X-Real-IP.
func hops(h http.Header) []string {
	if lines := h["X-Forwarded-For"]; len(lines) > 0 {
		return strings.Split(strings.Join(lines, ","), ",")
	}
	if lines := h["Forwarded"]; len(lines) > 0 {
		return forwardedFor(strings.Join(lines, ","))
	}
	return h["X-Real-Ip"]
}

// forwardedFor returns the "for" parameter of each element of a Forwarded
// field (RFC 7239 section 4), empty where an element has none.
func forwardedFor(field string) []string {
	var nodes []string
	for element := range splitQuoted(field, ',') {
		node := ""
		for pair := range splitQuoted(element, ';') {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if strings.EqualFold(name, "for") {
				node = strings.Trim(value, `"`)
			}
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// splitQuoted yields the parts of s between separators that stand outside of
// quoted strings (RFC 9110 section 5.6.4).
func splitQuoted(s string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '"':
				quoted = !quoted
			case quoted && s[i] == '\\':
				i++
			case !quoted && s[i] == separator:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

// parseNode reads an address with or without a port, IPv6 with or without
// brackets.
func parseNode(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if addr, err := netip.ParseAddr(s); err == nil {
		return plain(addr), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr()), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			addr, err := netip.ParseAddr(inner)
			return plain(addr), err == nil && addr.Is6()
		}
	}
	return netip.Addr{}, false
}

// plain makes one form of an address that can be written in several.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// peerOf returns the address at the other end of the request's connection.
func peerOf(r *http.Request) netip.Addr {
	addr, _ := parseNode(r.RemoteAddr)
	return addr
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// lastElement returns the last element of a comma-separated field: the one
// that the peer itself wrote, if it adds to what it got.
func lastElement(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}

// schemeOf reads a scheme as X-Forwarded-Proto has it; some proxies write that
// of the WebSocket.
func schemeOf(s string) (string, bool) {
	switch strings.ToLower(s) {
	case "http", "ws":
		return "http", true
	case "https", "wss":
		return "https", true
	}
	return "", false
}

// UpHeader returns the header that is sent up for r: the client's own without
// what concerns its connection to stent, with the client's address, scheme,
// host and request id, and with the changes of the plugs. The fields of a
// WebSocket handshake that the dialler writes are left out, those of
// subprotocols and extensions are in.
func UpHeader(r *http.Request, info *plug.Info) http.Header {
	up := maps.Clone(r.Header)
	if up == nil {
		up = make(http.Header)
	}
	plug.DropHopByHop(up)
	delete(up, "Content-Length")
	if r.ContentLength == 0 {
		delete(up, "Expect") // of a body that never comes
	}
	delete(up, "Sec-Websocket-Key")
	delete(up, "Sec-Websocket-Version")
	withhold(up, info.Withheld)

	if info.Peer.IsValid() {
		peer := info.Peer.String()
		up["X-Forwarded-For"] = []string{appended(up["X-Forwarded-For"], peer)}
		if lines := up["Forwarded"]; len(lines) > 0 {
			if info.Peer.Is6() {
				peer = `"[` + peer + `]"`
			}
			up["Forwarded"] = []string{appended(lines, "for="+peer)}
		}
	}
	up["X-Forwarded-Proto"] = []string{info.Scheme}
	if info.Host != "" { // HTTP/1.0 needs none
		up["X-Forwarded-Host"] = []string{info.Host}
	}
	if info.ClientCert != nil {
		info.ClientCert.Tell(up)
	}
	info.ApplyRequest(up)
	return up
}

// DownHeader returns the header of an upstream's answer as it goes to the
// client: without what concerns the upstream's connection, with the changes
// of the plugs. The caller writes the fields of a 101 itself.
func DownHeader(h http.Header, info *plug.Info) http.Header {
	down := maps.Clone(h)
	if down == nil {
		down = make(http.Header)
	}
	plug.DropHopByHop(down)
	info.ApplyResponse(down)
	return down
}

// appended is a list field with one more element.
func appended(lines []string, element string) string {
	if len(lines) == 0 {
		return element
	}
	return strings.Join(lines, ", ") + ", " + element
}
