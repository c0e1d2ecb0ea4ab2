package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// discovery says how the addresses of a target are found.
type discovery string

// The values of discovery.
const (
	// discoverHost dials the host of the URL as it is.
	discoverHost discovery = ""
	// discoverUnix dials a unix socket.
	discoverUnix discovery = "unix"
	// discoverDNS makes a target of each A and AAAA record.
	discoverDNS discovery = "dns"
	// discoverSRV makes a target of each SRV record (RFC 2782).
	discoverSRV discovery = "srv"
)

// endpoint is a target's URL taken apart.
type endpoint struct {
	discovery discovery
	tls       bool
	// host is without brackets; empty for a unix socket.
	host string
	// port is the URL's or its scheme's; 0 for unix sockets and SRV records.
	port int
	// path is put in front of the request's path, escaped as in the URL and
	// without a slash at its end.
	path string
	// socket is the path of a unix socket.
	socket string
}

// address is host:port, the name for SRV records, or unix:/path.
func (e endpoint) address() string {
	switch e.discovery {
	case discoverUnix:
		return "unix:" + e.socket
	case discoverSRV:
		return e.host
	case discoverHost, discoverDNS:
	}
	return net.JoinHostPort(e.host, strconv.Itoa(e.port))
}

// maxSocket is how long a path fits into sun_path (unix(7)).
const maxSocket = 107

// endpoint takes the target's URL apart. Its errors say what is wrong with
// the URL.
func (t Target) endpoint() (endpoint, error) {
	if socket, ok := strings.CutPrefix(t.URL, "unix:"); ok {
		if !strings.HasPrefix(socket, "/") || len(socket) > maxSocket {
			return endpoint{}, fmt.Errorf("want unix: and an absolute path of at most %d bytes", maxSocket)
		}
		return endpoint{discovery: discoverUnix, socket: path.Clean("/" + strings.TrimLeft(socket, "/"))}, nil
	}
	scheme, rest, ok := strings.Cut(t.URL, "://")
	if !ok {
		return endpoint{}, fmt.Errorf("%q is no URL; write it like ws://10.0.0.1:4000", t.URL)
	}
	var e endpoint
	scheme = strings.ToLower(scheme)
	if prefix, plain, found := strings.Cut(scheme, "+"); found {
		e.discovery, scheme = discovery(prefix), plain
		if e.discovery != discoverDNS && e.discovery != discoverSRV || scheme != "ws" && scheme != "wss" {
			return endpoint{}, unknownScheme(t.URL)
		}
	}
	switch scheme {
	case "ws", "http":
	case "wss", "https":
		e.tls = true
	default:
		return endpoint{}, unknownScheme(t.URL)
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		return endpoint{}, errors.Unwrap(err)
	}
	return e, e.fill(u)
}

func unknownScheme(text string) error {
	scheme, _, _ := strings.Cut(text, "://")
	return fmt.Errorf("unknown scheme %q; want ws, wss, http, https, unix, dns+ws, dns+wss, srv+ws or srv+wss", scheme)
}

// fill takes what u says beside its scheme.
func (e *endpoint) fill(u *url.URL) error {
	switch {
	case u.User != nil:
		return errors.New("a target's URL holds no user or password")
	case u.RawQuery != "" || u.ForceQuery:
		return errors.New("a target's URL holds no query; the client's is sent up")
	case u.Fragment != "" || strings.Contains(u.Path, "#"):
		return errors.New("a target's URL holds no fragment")
	case !validHost(u.Hostname()):
		return fmt.Errorf("%q is no host", u.Hostname())
	case hasDotSegment(u.Path):
		return errors.New("a target's path holds no dot segments")
	}
	e.host, e.path = u.Hostname(), strings.TrimRight(u.EscapedPath(), "/")
	switch port := u.Port(); {
	case e.discovery == discoverSRV && port != "":
		return errors.New("SRV records name the port; leave it out")
	case e.discovery == discoverSRV:
	case port == "" && e.discovery == discoverDNS:
		return errors.New("want a port, as in dns+ws://name:4000")
	case port == "" && strings.HasSuffix(u.Host, ":"):
		return errors.New("want a port after the colon")
	case port == "" && e.tls:
		e.port = 443
	case port == "":
		e.port = 80
	default:
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("port %s is not between 1 and 65535", port)
		}
		e.port = n
	}
	return nil
}

// DefaultName is the name of a target that is given none: its address. It is
// empty for names to be looked up, each address of which is a target.
func (t Target) DefaultName() string {
	e, err := t.endpoint()
	if err != nil || e.discovery == discoverDNS || e.discovery == discoverSRV {
		return ""
	}
	return e.address()
}
