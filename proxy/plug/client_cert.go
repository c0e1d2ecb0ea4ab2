package plug

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
)

// ClientCert is what is known of a client by its certificate, which the
// listener has verified.
type ClientCert struct {
	// Subject is the distinguished name (RFC 2253): "CN=alice,O=Example".
	Subject string
	// Names are the DNS names, e-mail addresses, IP addresses and URIs that
	// the certificate is for.
	Names []string
	// Serial is the serial number, in hexadecimal digits.
	Serial string
	// Fingerprint is the SHA-256 of the certificate, in hexadecimal digits.
	Fingerprint string

	commonName string
}

// NewClientCert reads a verified certificate.
func NewClientCert(c *x509.Certificate) *ClientCert {
	sum := sha256.Sum256(c.Raw)
	known := &ClientCert{
		Subject:     c.Subject.String(),
		Serial:      fmt.Sprintf("%x", c.SerialNumber),
		Fingerprint: hex.EncodeToString(sum[:]),
		commonName:  c.Subject.CommonName,
	}
	for _, uri := range c.URIs {
		known.Names = append(known.Names, uri.String())
	}
	known.Names = append(known.Names, c.DNSNames...)
	known.Names = append(known.Names, c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		known.Names = append(known.Names, ip.String())
	}
	return known
}

// ID is what the client is called by: the common name, or the first of the
// names where there is none.
func (c *ClientCert) ID() string {
	if c.commonName != "" || len(c.Names) == 0 {
		return c.commonName
	}
	return c.Names[0]
}

// Tell sets the header fields that tell the upstream whose certificate it
// is. What can't stand in a header is percent-encoded.
func (c *ClientCert) Tell(h http.Header) {
	names := make([]string, len(c.Names))
	for i, name := range c.Names {
		names[i] = strings.ReplaceAll(fieldText(name), ",", "%2C")
	}
	h["Stent-Client-Cert-Subject"] = []string{fieldText(c.Subject)}
	h["Stent-Client-Cert-Serial"] = []string{c.Serial}
	h["Stent-Client-Cert-Fingerprint"] = []string{c.Fingerprint}
	if len(names) > 0 {
		h["Stent-Client-Cert-Names"] = []string{strings.Join(names, ", ")}
	}
}

// fieldText is s with all that is no visible ASCII or blank percent-encoded,
// and so the percent sign.
func fieldText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
