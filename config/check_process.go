package config

import (
	"net/netip"
	"net/url"
	"strings"
)

// AdminOff as the admin's address means that there is none.
const AdminOff = "off"

// Listen returns the network and address for net.Listen, and false where the
// admin API is off.
func (a Admin) Listen() (network, address string, on bool) {
	if a.Address == AdminOff {
		return "", "", false
	}
	if path, ok := strings.CutPrefix(a.Address, "unix:"); ok {
		return "unix", path, true
	}
	return "tcp", a.Address, true
}

// Unguarded reports whether other machines reach the admin API and it asks
// for no token.
func (a Admin) Unguarded() bool {
	network, address, on := a.Listen()
	if !on || network == "unix" || a.Token.Value() != "" {
		return false
	}
	host, _, err := splitAddress(address)
	return err == nil && !loopback(host)
}

func (c *checker) listeners() {
	list := c.config.Listeners
	if list != nil && len(list) == 0 {
		c.fail("listeners", "no listener; leave the key out for one on %q", DefaultListener().Address)
	}
	for i, l := range list {
		at := join(l.KeyPath, "address")
		if _, _, err := splitAddress(l.Address); err != nil {
			c.fail(at, "%s", err)
		}
		for _, earlier := range list[:i] {
			if sameSocket(earlier.Address, l.Address) {
				c.fail(at, "%s listens on %q already", earlier.KeyPath, earlier.Address)
				break
			}
		}
		if l.TLS != nil {
			c.listenerTLS(l.TLS, join(l.KeyPath, "tls"))
		}
		if l.ProxyProtocol && len(l.TrustedProxies) == 0 {
			c.warn(join(l.KeyPath, "proxy_protocol"), "nobody may send a PROXY header: trusted_proxies is empty")
		}
	}
}

func (c *checker) listenerTLS(t *ListenerTLS, path string) {
	if len(t.Certificates) == 0 && t.ACME == nil {
		c.fail(join(path, "certificates"), "tls needs a certificate")
	}
	if t.ACME != nil {
		c.acme(t.ACME, join(path, "acme"))
	}
	for i, cert := range t.Certificates {
		c.pair(cert.Cert, cert.Key, item(join(path, "certificates"), i))
		if cert.Cert == "" && cert.Key == "" {
			c.fail(item(join(path, "certificates"), i), "want cert and key, both PEM files")
		}
	}
}

func (c *checker) acme(a *ACME, path string) {
	if len(a.Hosts) == 0 {
		c.fail(join(path, "hosts"), "acme needs the names to obtain certificates for")
	}
	for i, host := range a.Hosts {
		at := item(join(path, "hosts"), i)
		_, ip := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case strings.HasPrefix(host, "*."):
			c.fail(at, "%q needs a challenge in the DNS; only single names can be obtained", host)
		case !validHost(host) || ip == nil:
			c.fail(at, "%q is no host name; write it like chat.example.com", host)
		}
	}
	if a.Storage == "" {
		c.fail(join(path, "storage"), "acme needs a folder for its keys and certificates")
	}
	if a.Directory != "" {
		u, err := url.Parse(a.Directory)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			c.fail(join(path, "directory"), "want the URL of an ACME directory, or nothing for Let's Encrypt")
		}
	}
}

// pair checks that a certificate comes with its key.
func (c *checker) pair(cert, key, path string) {
	switch {
	case cert != "" && key == "":
		c.fail(join(path, "key"), "the certificate needs its key")
	case key != "" && cert == "":
		c.fail(join(path, "cert"), "the key needs its certificate")
	}
}

func (c *checker) admin() {
	a, at := c.config.Admin, "admin.address"
	network, address, on := a.Listen()
	if !on {
		return
	}
	if token := a.Token.Value(); token != "" && !bearer(token) {
		c.fail("admin.token", "no Authorization header could carry it: want visible ASCII characters, with blanks only between them")
	}
	if network == "unix" {
		if !strings.HasPrefix(address, "/") || len(address) > maxSocket {
			c.fail(at, "want unix: and an absolute path of at most %d bytes", maxSocket)
		}
		return
	}
	if _, _, err := splitAddress(address); err != nil {
		c.fail(at, `%s, unix:/run/stent.sock, or "off"`, err)
		return
	}
	if a.Unguarded() {
		c.fail("admin.token", "required: %q is not loopback", address)
	}
	for _, l := range c.config.Listeners {
		if sameSocket(l.Address, address) {
			c.fail(at, "%s listens on %q already", l.KeyPath, l.Address)
			return
		}
	}
}

// bearer reports whether a client can send the token as it is: fields lose the
// blanks around them (RFC 9110 section 5.5).
func bearer(token string) bool {
	return strings.TrimSpace(token) == token && !strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' })
}

// Bounds of what makes sense for a process.
const (
	minHeaderSize Size = 1 << 10
	maxHeaderSize Size = 16 << 20
	maxPartitions      = 4096
)

func (c *checker) process() {
	limits := c.config.Limits
	c.positive(float64(limits.HandshakeTimeout), "limits.handshake_timeout")
	if limits.HeaderSize < minHeaderSize || limits.HeaderSize > maxHeaderSize {
		c.fail("limits.header_size", "must be between %s and %s", minHeaderSize, maxHeaderSize)
	}
	if c.config.Supervisor.Partitions > maxPartitions {
		c.fail("supervisor.partitions", "must be at most %d", maxPartitions)
	}
}

// positive checks that a number is above zero. Negative ones are reported
// for every key alike.
func (c *checker) positive(n float64, path string) {
	if n == 0 {
		c.fail(path, "must be above 0")
	}
}
