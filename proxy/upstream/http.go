package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// idleHTTP is how long a connection for plain requests is kept unused:
	// less than the 5 s after which Node servers close theirs, so that a
	// request does not meet a connection on its way out.
	idleHTTP = 4 * time.Second
	// continueHTTP is how long a body that the client holds back (RFC 9110
	// section 10.1.1) waits for the upstream's 100. It is sent then, as many
	// upstreams know nothing of Expect.
	continueHTTP = time.Second
	// maxIdleHTTP bounds such connections for each target.
	maxIdleHTTP = 64
)

// PickHTTP picks a target for one plain HTTP request, as the pool's balance
// says. The request goes to base (its path put in front of the request's)
// over rt, and its Host may stay the client's. The request counts as load of
// the target until release, which must be called, but not as one of its
// max_sessions. The error is ErrNoTarget.
func (p *Pool) PickHTTP(r *HTTPRequest) (base *url.URL, rt http.RoundTripper, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	candidates := p.available(true, nil, now)
	if len(candidates) == 0 {
		return nil, nil, nil, p.noTarget(now)
	}
	t := choose(p.policy.balance, candidates, r, p.rng)
	t.requests++
	return t.addr.base(), t.roundTripper(), sync.OnceFunc(t.releaseHTTP), nil
}

func (t *Target) releaseHTTP() {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.requests--
	t.pool.forget(t)
	if !t.listed {
		t.idle()
	}
}

// roundTripper returns the target's transport, made anew when a reload has
// changed its TLS. pool.mu is held.
func (t *Target) roundTripper() http.RoundTripper {
	if t.transport == nil || t.transportTLS != t.tls {
		t.idle()
		t.transport, t.transportTLS = t.newTransport(), t.tls
	}
	return t.transport
}

func (t *Target) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:    t.connectHTTP,
		DialTLSContext: t.connectHTTP,
		// Not nil: HTTP/1.1 alone is spoken.
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost:   maxIdleHTTP,
		IdleConnTimeout:       idleHTTP,
		ExpectContinueTimeout: continueHTTP,
		// What the client accepts goes up, and what comes back goes to it.
		DisableCompression: true,
	}
}

// connectHTTP makes a connection for plain requests, TLS included, within
// dial.timeout. The URL holds the target's Host; where it is, is known here.
func (t *Target) connectHTTP(parent context.Context, _, _ string) (net.Conn, error) {
	l := t.lease()
	ctx, cancel := context.WithTimeout(parent, l.policy.timeout)
	defer cancel()
	nc, err := l.connect(ctx)
	return nc, l.timedOut(parent, err)
}
