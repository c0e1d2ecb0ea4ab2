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

// Discovery says how the addresses of a target are found.
type Discovery string

// The values of Discovery.
const (
	// DiscoverHost dials the host of the URL as it is.
	DiscoverHost Discovery = ""
	// DiscoverUnix dials a unix socket.
	DiscoverUnix Discovery = "unix"
	// DiscoverDNS makes a target of each A and AAAA record.
	DiscoverDNS Discovery = "dns"
	// DiscoverSRV makes a target of each SRV record (RFC 2782).
	DiscoverSRV Discovery = "srv"
)

// Endpoint is a target's URL taken apart.
type Endpoint struct {
	Discovery Discovery
	TLS       bool
	// Host is without brackets; empty for a unix socket.
	Host string
	// Port is the URL's or its scheme's; 0 for unix sockets and SRV records.
	Port int
	// Path is put in front of the request's path, escaped as in the URL and
	// without a slash at its end.
	Path string
	// Socket is the path of a unix socket.
	Socket string
}

// Address is host:port, the name for SRV records, or unix:/path.
func (e Endpoint) Address() string {
	switch e.Discovery {
	case DiscoverUnix:
		return "unix:" + e.Socket
	case DiscoverSRV:
		return e.Host
	case DiscoverHost, DiscoverDNS:
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}

// maxSocket is how long a path fits into sun_path (unix(7)).
const maxSocket = 107

// Endpoint takes the target's URL apart. Its errors say what is wrong with
// the URL.
func (t Target) Endpoint() (Endpoint, error) {
	if socket, ok := strings.CutPrefix(t.URL, "unix:"); ok {
		if !strings.HasPrefix(socket, "/") || len(socket) > maxSocket {
			return Endpoint{}, fmt.Errorf("want unix: and an absolute path of at most %d bytes", maxSocket)
		}
		return Endpoint{Discovery: DiscoverUnix, Socket: path.Clean("/" + strings.TrimLeft(socket, "/"))}, nil
	}
	scheme, rest, ok := strings.Cut(t.URL, "://")
	if !ok && strings.Contains(t.URL, "@") {
		return Endpoint{}, errUser // not quoted
	}
	if !ok {
		return Endpoint{}, fmt.Errorf("%q is no URL; write it like ws://10.0.0.1:4000", t.URL)
	}
	var e Endpoint
	scheme = strings.ToLower(scheme)
	if discovery, plain, found := strings.Cut(scheme, "+"); found {
		e.Discovery, scheme = Discovery(discovery), plain
		if e.Discovery != DiscoverDNS && e.Discovery != DiscoverSRV || scheme != "ws" && scheme != "wss" {
			return Endpoint{}, unknownScheme(t.URL)
		}
	}
	switch scheme {
	case "ws", "http":
	case "wss", "https":
		e.TLS = true
	default:
		return Endpoint{}, unknownScheme(t.URL)
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil && strings.Contains(rest, "@") {
		return Endpoint{}, errUser // the parser's words may hold a part of the password
	}
	if err != nil {
		return Endpoint{}, errors.Unwrap(err)
	}
	return e, e.fill(u)
}

var errUser = errors.New("a target's URL holds no user or password")

func unknownScheme(text string) error {
	scheme, _, _ := strings.Cut(text, "://")
	return fmt.Errorf("unknown scheme %q; want ws, wss, http, https, unix, dns+ws, dns+wss, srv+ws or srv+wss", scheme)
}

// fill takes what u says beside its scheme.
func (e *Endpoint) fill(u *url.URL) error {
	switch {
	case u.User != nil:
		return errUser
	case u.RawQuery != "" || u.ForceQuery:
		return errors.New("a target's URL holds no query; the client's is sent up")
	case u.Fragment != "" || strings.Contains(u.Path, "#"):
		return errors.New("a target's URL holds no fragment")
	case !validHost(u.Hostname()):
		return fmt.Errorf("%q is no host", u.Hostname())
	case hasDotSegment(u.Path):
		return errors.New("a target's path holds no dot segments")
	}
	e.Host, e.Path = u.Hostname(), strings.TrimRight(u.EscapedPath(), "/")
	switch port := u.Port(); {
	case e.Discovery == DiscoverSRV && port != "":
		return errors.New("SRV records name the port; leave it out")
	case e.Discovery == DiscoverSRV:
	case port == "" && e.Discovery == DiscoverDNS:
		return errors.New("want a port, as in dns+ws://name:4000")
	case port == "" && strings.HasSuffix(u.Host, ":"):
		return errors.New("want a port after the colon")
	case port == "" && e.TLS:
		e.Port = 443
	case port == "":
		e.Port = 80
	default:
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("port %s is not between 1 and 65535", port)
		}
		e.Port = n
	}
	return nil
}

// DefaultName is the name of a target that is given none: its address. It is
// empty for names to be looked up, each address of which is a target.
func (t Target) DefaultName() string {
	e, err := t.Endpoint()
	if err != nil || e.Discovery == DiscoverDNS || e.Discovery == DiscoverSRV {
		return ""
	}
	return e.Address()
}
