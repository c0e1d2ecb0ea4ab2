package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// certificateAge is how long certificate files are believed to be unchanged.
const certificateAge = time.Second

// certificates is the TLS side of a listener: its certificates by SNI, read
// again when their files change, as renewal tools do behind a running proxy.
type certificates struct {
	log *zap.Logger
	// keeper has those that come from an ACME server.
	keeper *keeper

	mu      sync.Mutex
	from    config.ListenerTLS
	current *tls.Config
	// read are the modification times of the files that current was made of.
	read   map[string]time.Time
	looked time.Time
}

// newCertificates reads the files that c names.
func newCertificates(c config.ListenerTLS, log *zap.Logger) (*certificates, error) {
	certs := &certificates{log: log, keeper: newKeeper(log)}
	apply, err := certs.prepare(c)
	if err != nil {
		return nil, err
	}
	certs.use(apply)
	return certs, nil
}

// prepare reads the files that from names; apply, called with c.mu held,
// answers all handshakes from now on with them.
func (c *certificates) prepare(from config.ListenerTLS) (apply func(), err error) {
	if len(from.Certificates) == 0 && from.ACME == nil {
		return nil, errors.New("no certificates")
	}
	if err := prepareACME(from.ACME); err != nil {
		return nil, err
	}
	read := modified(from) // before reading: a change meanwhile is seen next time
	current, err := serverTLS(from)
	if err != nil {
		return nil, err
	}
	if from.ACME != nil {
		current.GetCertificate = c.kept(current.Certificates)
	}
	return func() {
		c.keeper.want(from.ACME)
		c.from, c.current, c.read, c.looked = from, current, read, time.Now()
	}, nil
}

// use applies what prepare has made.
func (c *certificates) use(apply func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	apply()
}

// config returns a tls.Config that follows the changes of c.
func (c *certificates) config() *tls.Config {
	challenge := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{acmeProtocol},
		GetCertificate: c.keeper.certificate,
	}
	return &tls.Config{
		NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Equal(hello.SupportedProtos, challenge.NextProtos) && c.keeper.has(hello.ServerName) {
				return challenge, nil
			}
			return c.latest(), nil
		},
	}
}

// kept returns what chooses between the keeper's certificates and those from
// files: these come first. Nil and no error leaves the choice to crypto/tls.
func (c *certificates) kept(files []tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		covers := func(cert tls.Certificate) bool { return cert.Leaf.VerifyHostname(hello.ServerName) == nil }
		if len(files) > 0 && (!c.keeper.has(strings.TrimSuffix(hello.ServerName, ".")) || slices.ContainsFunc(files, covers)) {
			return nil, nil
		}
		return c.keeper.certificate(hello)
	}
}

// latest returns the present configuration, after a look at the files every
// now and then. Files that can't be used are logged and the old ones kept: a
// renewal may be half done.
func (c *certificates) latest() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < certificateAge {
		return c.current
	}
	c.looked = now
	for name, at := range modified(c.from) {
		if at.Equal(c.read[name]) {
			continue
		}
		apply, err := c.prepare(c.from)
		if err != nil {
			c.log.Warn("changed certificates not used", zap.Error(err))
			break
		}
		apply()
		c.log.Info("certificates read again")
		break
	}
	return c.current
}

// modified returns the modification times of the files; zero for those that
// can't be asked.
func modified(c config.ListenerTLS) map[string]time.Time {
	var names []string
	for _, pair := range c.Certificates {
		names = append(names, pair.Cert, pair.Key)
	}
	if c.ClientCA != "" {
		names = append(names, c.ClientCA)
	}
	times := make(map[string]time.Time, len(names))
	for _, name := range names {
		times[name] = time.Time{}
		if stat, err := os.Stat(name); err == nil {
			times[name] = stat.ModTime()
		}
	}
	return times
}

// serverTLS reads the files and makes a tls.Config of them. HTTP/1.1 is all it
// offers: over HTTP/2 a browser would ask for WebSockets by RFC 8441.
func serverTLS(c config.ListenerTLS) (*tls.Config, error) {
	t := &tls.Config{NextProtos: []string{"http/1.1"}}
	var errs []error
	switch c.MinVersion {
	case "", "1.2":
		t.MinVersion = tls.VersionTLS12
	case "1.3":
		t.MinVersion = tls.VersionTLS13
	default:
		errs = append(errs, config.Within("min_version", fmt.Errorf("%q is neither 1.2 nor 1.3", c.MinVersion)))
	}
	for i, pair := range c.Certificates {
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			errs = append(errs, config.Within(fmt.Sprintf("certificates[%d]", i), fmt.Errorf("load certificate %s: %w", pair.Cert, err)))
		}
		t.Certificates = append(t.Certificates, cert)
	}
	if c.ClientCA != "" {
		var err error
		if t.ClientCAs, err = authorities(c.ClientCA); err != nil {
			errs = append(errs, config.Within("client_ca", err))
		}
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, errors.Join(errs...)
}

// authorities reads the certificates of those who may sign clients'.
func authorities(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("load the authorities of client certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load the authorities of client certificates: no certificate in %s", name)
	}
	return pool, nil
}
