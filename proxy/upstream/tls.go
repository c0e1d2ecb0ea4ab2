package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/stentproxy/stent/config"
)

// resumedSessions bounds the TLS sessions that a pool remembers, so that
// redials resume instead of starting anew.
const resumedSessions = 64

// compileTLS reads the files of a pool's tls key. Only HTTP/1.1 is offered:
// a WebSocket handshake is an HTTP/1.1 upgrade. What a target has taken can be
// told by whole records, so what is written has to be one where it can be.
func compileTLS(c config.UpstreamTLS) (*tls.Config, error) {
	t := &tls.Config{
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.InsecureSkipVerify,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(resumedSessions),

		DynamicRecordSizingDisabled: true,
	}
	var errs []error
	if c.CA != "" {
		roots, err := readCA(c.CA)
		if err != nil {
			errs = append(errs, &config.KeyError{Path: "tls.ca", Err: err})
		}
		t.RootCAs = roots
	}
	switch {
	case c.Cert != "" && c.Key != "":
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			errs = append(errs, &config.KeyError{Path: "tls.cert", Err: fmt.Errorf("load client certificate: %w", err)})
		}
		t.Certificates = []tls.Certificate{pair}
	case c.Cert != "":
		errs = append(errs, &config.KeyError{Path: "tls.cert", Err: errors.New("a client certificate needs tls.key")})
	case c.Key != "":
		errs = append(errs, &config.KeyError{Path: "tls.key", Err: errors.New("a client key needs tls.cert")})
	}
	return t, errors.Join(errs...)
}

func readCA(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA: %s holds no PEM certificate", file)
	}
	return roots, nil
}
