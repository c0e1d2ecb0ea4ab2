package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// acmeProtocol is what an authority asks for in a TLS-ALPN-01 challenge (RFC
// 8737), and nothing else beside it.
const acmeProtocol = "acme-tls/1"

// keeper obtains the certificates of a listener from an ACME server (RFC
// 8555) and renews them. All that certmagic does is done here.
type keeper struct {
	log *zap.Logger

	// Set before run.

	// address is the listener's. Certmagic is told that it may listen there:
	// it finds the address taken and leaves the challenges to us.
	address *net.TCPAddr
	// plain says that HTTP-01 is answered, by a listener without TLS.
	plain bool

	wanted  atomic.Pointer[config.ACME] // nil: nothing
	changed chan struct{}               // one signal at most
	// kept are the certificates: the present ones and those of before a
	// reload, which serve until the present ones are read.
	kept atomic.Pointer[[2]*issuance]
}

func newKeeper(log *zap.Logger) *keeper {
	k := &keeper{log: log.Named("acme"), changed: make(chan struct{}, 1)}
	k.kept.Store(new([2]*issuance))
	return k
}

// prepareACME makes the folder that c names.
func prepareACME(c *config.ACME) error {
	if c == nil {
		return nil
	}
	if err := os.MkdirAll(c.Storage, 0o700); err != nil {
		return config.Within("acme.storage", fmt.Errorf("make the folder for certificates: %w", err))
	}
	return nil
}

// want takes over what is to be kept from now on. One call at a time.
func (k *keeper) want(c *config.ACME) {
	if old := k.wanted.Load(); old == c || old != nil && c != nil && sameACME(*old, *c) {
		return
	}
	k.wanted.Store(c)
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

func sameACME(a, b config.ACME) bool {
	return slices.Equal(a.Hosts, b.Hosts) && a.Email == b.Email && a.Storage == b.Storage && a.Directory == b.Directory
}

// run keeps certificates until ctx ends.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c := k.wanted.Load(); c != nil {
			k.keep(ctx, c)
			continue
		}
		select {
		case <-ctx.Done():
		case <-k.changed:
		}
	}
}

// issuance is one configuration at work.
type issuance struct {
	hosts  []string
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer
	// cached is told of each certificate that there is.
	cached chan struct{}
}

func (k *keeper) newIssuance(c *config.ACME) *issuance {
	i := &issuance{hosts: c.Hosts, cached: make(chan struct{}, 1)}
	i.cache = certmagic.NewCache(i.options(k.log, maxRenewCheck))
	i.config = certmagic.New(i.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: c.Storage},
		Issuers: []certmagic.Issuer{}, // the one below
		Logger:  k.log,
		OnEvent: func(_ context.Context, event string, _ map[string]any) error {
			if event == "cached_managed_cert" {
				select {
				case i.cached <- struct{}{}:
				default:
				}
			}
			return nil
		},
		// The first name answers for all others, as the first file does.
		DefaultServerName:  c.Hosts[0],
		FallbackServerName: c.Hosts[0],
	})
	directory := c.Directory
	if directory == "" {
		directory = certmagic.LetsEncryptProductionCA
	}
	i.issuer = certmagic.NewACMEIssuer(i.config, certmagic.ACMEIssuer{
		CA:                   directory,
		Email:                c.Email,
		Agreed:               true,
		DisableHTTPChallenge: !k.plain,
		ListenHost:           k.address.IP.String(),
		AltHTTPPort:          k.address.Port,
		AltTLSALPNPort:       k.address.Port,
		Logger:               k.log,
	})
	i.config.Issuers = []certmagic.Issuer{i.issuer}
	return i
}

// options are those of the cache, where certificates are looked at every so
// often.
func (i *issuance) options(log *zap.Logger, every time.Duration) certmagic.CacheOptions {
	return certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return i.config, nil },
		RenewCheckInterval: every,
		Logger:             log,
	}
}

// keep obtains and renews what c names, until that changes or ctx ends.
func (k *keeper) keep(ctx context.Context, c *config.ACME) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	i := k.newIssuance(c)
	defer i.cache.Stop()
	k.kept.Store(&[2]*issuance{i, k.kept.Load()[0]})
	if err := i.config.ManageAsync(ctx, c.Hosts); err != nil {
		k.log.Error("certificates not kept", zap.Error(err))
	}
	timer := time.NewTimer(maxRenewCheck)
	defer timer.Stop()
	for {
		if k.wanted.Load() != c {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
			continue
		case <-i.cached:
		case <-timer.C:
			if err := i.cache.RenewManagedCertificates(ctx); err != nil {
				k.log.Error("certificates not renewed", zap.Error(err))
			}
		}
		// Certmagic counts with the interval when it asks whether there will
		// be another chance.
		pause := i.pause()
		i.cache.SetOptions(i.options(k.log, pause))
		timer.Reset(pause)
	}
}

const (
	minRenewCheck = time.Second
	maxRenewCheck = 10 * time.Minute
)

// pause is how long to wait before asking again which certificates are to be
// renewed: a small part of the shortest life among them.
func (i *issuance) pause() time.Duration {
	pause := maxRenewCheck
	for _, host := range i.hosts {
		for _, cert := range i.cache.AllMatchingCertificates(host) {
			pause = min(pause, cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/30)
		}
	}
	return max(pause, minRenewCheck)
}

// has says whether the keeper is the one to ask for a name.
func (k *keeper) has(name string) bool {
	c := k.wanted.Load()
	return c != nil && slices.ContainsFunc(c.Hosts, func(host string) bool {
		return strings.EqualFold(strings.TrimSuffix(host, "."), name)
	})
}

// certificate returns the one for a client, or for an authority that asks
// for the answer to its challenge.
func (k *keeper) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	err := errors.New("no certificate is kept yet")
	for _, i := range k.kept.Load() {
		if i == nil {
			continue
		}
		var cert *tls.Certificate
		if cert, err = i.config.GetCertificate(hello); err == nil {
			return cert, nil
		}
	}
	return nil, fmt.Errorf("certificate for %q: %w", hello.ServerName, err)
}

// answer answers an HTTP-01 challenge that is the keeper's.
func (k *keeper) answer(w http.ResponseWriter, r *http.Request) bool {
	i := k.kept.Load()[0]
	return i != nil && k.has(hostName(r.Host)) && i.issuer.HandleHTTPChallenge(w, r)
}
