package upstream

import (
	"cmp"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/stentproxy/stent/config"
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

// source is one entry of `targets`. For one that names a place its address is
// complete; the others lack what DNS tells.
type source struct {
	// raw is the URL as written, by which resolved addresses are kept.
	raw       string
	name      string // "" where each address found gets its own
	weight    int
	discovery config.Discovery
	host      string // to look up
	port      int    // of DiscoverDNS
	template  address
}

// newSource takes a target's URL apart. Its errors say what is wrong with
// the URL.
func newSource(t config.Target) (source, error) {
	e, err := t.Endpoint()
	if err != nil {
		return source{}, err
	}
	s := source{
		raw: t.URL, name: cmp.Or(t.Name, t.DefaultName()), weight: cmp.Or(t.Weight, 1),
		discovery: e.Discovery, host: e.Host, port: e.Port,
		template: address{network: "tcp", path: e.Path, tls: e.TLS, serverName: e.Host},
	}
	switch e.Discovery {
	case config.DiscoverUnix:
		s.template.network, s.template.dial = "unix", e.Socket
		s.template.url, s.template.host = e.Address(), "localhost"
	case config.DiscoverHost:
		s.template.host = hostHeader(e)
		s.template = s.template.at(e.Host, e.Port)
	case config.DiscoverDNS:
		s.template.host = hostHeader(e)
	case config.DiscoverSRV:
		s.template.serverName = serviceDomain(e.Host)
	}
	return s, nil
}

// found reports whether the source's addresses are found in DNS.
func (s source) found() bool {
	return s.discovery == config.DiscoverDNS || s.discovery == config.DiscoverSRV
}

// hostHeader is the host and, where it is not the scheme's own, the port.
func hostHeader(e config.Endpoint) string {
	own := 80
	if e.TLS {
		own = 443
	}
	if e.Port != own {
		return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
	}
	if strings.Contains(e.Host, ":") {
		return "[" + e.Host + "]"
	}
	return e.Host
}

// at completes an address with where it is.
func (a address) at(host string, port int) address {
	scheme := "ws://"
	if a.tls {
		scheme = "wss://"
	}
	a.dial = net.JoinHostPort(host, strconv.Itoa(port))
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
