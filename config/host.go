package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// hostName is a DNS name; underscores occur in container networks.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)

const maxHost = 253 // RFC 1035, section 2.3.4, without the root's length byte

func validHost(host string) bool {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return addr.Zone() == ""
	}
	return len(host) <= maxHost && hostName.MatchString(host)
}

// validHostPattern checks the host of a route or scope.
func validHostPattern(pattern string) error {
	if addr, err := netip.ParseAddr(pattern); err == nil && addr.Is6() {
		return fmt.Errorf("write the address as it stands in a request, [%s]", pattern)
	}
	if validHost(strings.TrimPrefix(pattern, "*.")) && !strings.HasSuffix(pattern, ".") {
		return nil
	}
	if pattern == "*" {
		return errors.New("leave the host out to match any")
	}
	if host, _, err := splitAddress(pattern); err == nil && host != "" {
		return fmt.Errorf("a host is matched without its port; write %s", host)
	}
	return fmt.Errorf("%q is no host; write it like chat.example.com or *.example.com", pattern)
}

// coversHost reports whether each host that inner matches matches outer too.
// An empty pattern matches all.
func coversHost(outer, inner string) bool {
	outer, inner = foldHost(outer), foldHost(inner)
	if outer == "" || outer == inner {
		return true
	}
	suffix, ok := strings.CutPrefix(outer, "*")
	return ok && strings.HasSuffix(strings.TrimPrefix(inner, "*"), suffix) && inner != ""
}

func foldHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// splitAddress takes host:port apart. The port is a number; 0 is any free
// one.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address; write it like 127.0.0.1:4000 or :4000", address)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not between 0 and 65535", text)
	}
	if host != "" && !validHost(host) {
		return "", 0, fmt.Errorf("%q is no host", host)
	}
	return host, port, nil
}

// loopback reports whether only this machine reaches a listener on host.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// sameSocket reports whether two addresses can't be listened on at once.
func sameSocket(a, b string) bool {
	hostA, portA, errA := splitAddress(a)
	hostB, portB, errB := splitAddress(b)
	if errA != nil || errB != nil || portA != portB || portA == 0 {
		return false
	}
	return strings.EqualFold(hostA, hostB) || wildcard(hostA) || wildcard(hostB)
}

func wildcard(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}
