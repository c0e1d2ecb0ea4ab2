package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// kind says where a configured target's addresses come from.
type kind uint8

const (
	fixed  kind = iota // the URL itself
	byHost             // dns+: A and AAAA records
	bySRV              // srv+: SRV records
)

// address is where one target is and how it is spoken to.
type address struct {
	// url is the canonical form, by which a target's state is kept.
	url string
	// network and dial are what net.Dialer takes.
	network, dial string
	// host is the Host header of a target that gets its own.
	host string
	// path is put in front of a request's; it has no trailing slash.
	path string
	tls  bool
	// serverName is what the target's certificate is checked against.
	serverName string
}

// source is one entry of `targets` after parsing. For a fixed one the
// address is complete; the others lack what resolution gives.
type source struct {
	kind kind
	// raw is the URL as written, by which resolved addresses are kept.
	raw      string
	name     string
	weight   int
	lookup   string // the name to look up
	port     string // of byHost
	template address
}

// parseSource reads a target's URL. Its errors name what is wrong with it.
func parseSource(raw string) (source, error) {
	s := source{raw: raw}
	if path, ok := strings.CutPrefix(raw, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if !strings.HasPrefix(path, "/") {
			return s, errors.New("a unix target is unix:/absolute/path")
		}
		s.template = address{url: "unix:" + path, network: "unix", dial: path, host: "localhost"}
		s.name = s.template.url
		return s, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return s, fmt.Errorf("parse target URL: %w", errors.Unwrap(err))
	}
	scheme := u.Scheme
	switch {
	case strings.HasPrefix(scheme, "dns+"):
		s.kind, scheme = byHost, scheme[len("dns+"):]
	case strings.HasPrefix(scheme, "srv+"):
		s.kind, scheme = bySRV, scheme[len("srv+"):]
	}
	port := "80"
	switch scheme {
	case "ws", "http":
	case "wss", "https":
		s.template.tls, port = true, "443"
	case "":
		return s, fmt.Errorf("target %q has no scheme: write ws://%s", raw, raw)
	default:
		return s, fmt.Errorf("unknown scheme %q: want ws, wss, http, https, unix, dns+ws(s) or srv+ws(s)", u.Scheme)
	}
	switch {
	case u.Hostname() == "":
		return s, errors.New("target URL has no host")
	case u.User != nil:
		return s, errors.New("target URL must not hold a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return s, errors.New("target URL must not have a query or fragment")
	case s.kind == bySRV && u.Port() != "":
		return s, errors.New("the port of an srv target comes from its SRV records")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	s.template.network = "tcp"
	s.template.path = strings.TrimRight(u.EscapedPath(), "/")
	s.template.serverName = u.Hostname()
	s.lookup, s.port = u.Hostname(), port
	switch s.kind {
	case fixed:
		s.template.host = u.Host
		s.template = s.template.at(u.Hostname(), port)
		s.name = s.template.dial
	case byHost:
		s.template.host = u.Host
	case bySRV:
		s.template.serverName = serviceDomain(u.Hostname())
	}
	return s, nil
}

// at completes an address with where it is.
func (a address) at(host, port string) address {
	scheme := "ws://"
	if a.tls {
		scheme = "wss://"
	}
	a.dial = net.JoinHostPort(host, port)
	if a.host == "" {
		a.host = a.dial
	}
	a.url = scheme + a.dial + a.path
	return a
}

// base is the URL that plain HTTP requests of the target start from.
func (a address) base() *url.URL {
	u := &url.URL{Scheme: "http", Host: a.host}
	if a.tls {
		u.Scheme = "https"
	}
	// The path was taken from a parsed URL, so that it parses again.
	if plain, err := url.PathUnescape(a.path); err == nil {
		u.Path, u.RawPath = plain, a.path
	}
	return u
}

// serviceDomain cuts the service labels off an SRV name: what a certificate
// is checked against is the domain that was asked, not the host that an
// unsigned record named (RFC 6125 section 6.2.1).
func serviceDomain(name string) string {
	for strings.HasPrefix(name, "_") {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name
}
