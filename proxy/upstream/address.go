package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
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

// discovery says how a target's addresses are found.
type discovery uint8

const (
	written discovery = iota // in the URL itself
	byHost                   // dns+: A and AAAA records
	bySRV                    // srv+: SRV records (RFC 2782)
)

// source is one entry of `targets`. For one whose address is written it is
// complete; the others lack what DNS tells.
type source struct {
	// raw is the URL as written, by which resolved addresses are kept.
	raw       string
	name      string // "" where each address found gets its own
	weight    int
	discovery discovery
	host      string // to look up
	port      int    // of byHost
	template  address
}

// newSource takes a target's URL apart. Its errors say what is wrong with
// the URL; config says most of it earlier, and where.
func newSource(t config.Target) (source, error) {
	s := source{raw: t.URL, weight: cmp.Or(t.Weight, 1)}
	if path, ok := strings.CutPrefix(t.URL, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return s, errors.New("a unix target is unix:/absolute/path")
		}
		s.template = address{network: "unix", dial: filepath.Clean(path), host: "localhost"}
		s.template.url = "unix:" + s.template.dial
		s.name = cmp.Or(t.Name, s.template.url)
		return s, nil
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return s, fmt.Errorf("parse target URL: %w", err)
	}
	scheme := u.Scheme
	switch prefix, plain, _ := strings.Cut(scheme, "+"); prefix {
	case "dns":
		s.discovery, scheme = byHost, plain
	case "srv":
		s.discovery, scheme = bySRV, plain
	}
	s.port = 80
	switch scheme {
	case "ws", "http":
	case "wss", "https":
		s.template.tls, s.port = true, 443
	default:
		return s, fmt.Errorf("target %q has none of the schemes ws, wss, http, https, unix, dns+ws(s) and srv+ws(s)", t.URL)
	}
	switch {
	case u.Hostname() == "":
		return s, errors.New("target URL has no host")
	case u.User != nil:
		return s, errors.New("target URL must not hold a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return s, errors.New("target URL must not have a query or fragment")
	case s.discovery == bySRV && u.Port() != "":
		return s, errors.New("the port of an srv target comes from its SRV records")
	}
	own := s.port
	if u.Port() != "" {
		if s.port, err = strconv.Atoi(u.Port()); err != nil || s.port < 1 || s.port > 65535 {
			return s, fmt.Errorf("port %s is not between 1 and 65535", u.Port())
		}
	}
	s.host, s.name = u.Hostname(), t.Name
	s.template.network = "tcp"
	s.template.path = strings.TrimRight(u.EscapedPath(), "/")
	s.template.serverName = s.host
	switch s.discovery {
	case written:
		s.template.host = hostHeader(s.host, s.port, own)
		s.template = s.template.at(s.host, s.port)
		s.name = cmp.Or(t.Name, s.template.dial)
	case byHost:
		s.template.host = hostHeader(s.host, s.port, own)
	case bySRV:
		s.template.serverName = serviceDomain(s.host)
	}
	return s, nil
}

// found reports whether the source's addresses are found in DNS.
func (s source) found() bool { return s.discovery != written }

// hostHeader is the host and, where it is not the scheme's own, the port.
func hostHeader(host string, port, own int) string {
	if port != own {
		return net.JoinHostPort(host, strconv.Itoa(port))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
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
