package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
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

// RoundTrip sends one plain HTTP request to a target, as the pool's balance
// says, and to another one where no connection could be made, up to
// dial.attempts in all. at makes the request for a target whose URLs begin
// with base; its Host may stay the client's. A target that can't be connected
// to closes the request's body unread.
//
// The request counts as load of the target until the answer's body is closed,
// but not as one of its max_sessions. The error is ErrNoTarget when there is
// none to try, a *DialError, at's, or that of a target that was connected to.
func (p *Pool) RoundTrip(ctx context.Context, r *HTTPRequest, at func(base *url.URL) (*http.Request, error)) (*http.Response, error) {
	var tried []Attempt
	for {
		l, err := p.reserve(ctx, r, tried)
		if err != nil {
			return nil, err
		}
		answer, err := l.target.send(at)
		if err == nil {
			return answer, nil
		}
		unsent, ok := errors.AsType[*connectError](err)
		if !ok || ctx.Err() != nil {
			return nil, err
		}
		tried = append(tried, Attempt{l.target, unsent.error})
	}
}

func (r *HTTPRequest) plain() bool { return true }

func (r *HTTPRequest) take(p *Pool, candidates []*Target, again bool) *Target {
	if again {
		candidates = hopeful(candidates)
	}
	t := choose(p.policy.balance, candidates, r, p.rng)
	t.requests++
	return t
}

// connectError says that a request was not sent, for want of a connection.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

// send sends a request that counts as load of the target, until the answer's
// body is closed.
func (t *Target) send(at func(base *url.URL) (*http.Request, error)) (*http.Response, error) {
	r, err := at(t.addr.base())
	if err != nil {
		t.releaseHTTP()
		return nil, err
	}
	answer, err := t.roundTripper().RoundTrip(r)
	if err != nil {
		t.releaseHTTP()
		return nil, err
	}
	t.answered(answer.StatusCode)
	answer.Body = &loadBody{answer.Body, sync.OnceFunc(t.releaseHTTP)}
	return answer, nil
}

// answered takes note of an answer. As for a handshake, a 5xx is neither a
// failure nor a success.
func (t *Target) answered(status int) {
	if status >= 500 {
		return
	}
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.succeeded()
}

// loadBody is an answer's body, which counts as load until it is closed.
type loadBody struct {
	io.ReadCloser
	release func()
}

func (b *loadBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
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
// changed its TLS.
func (t *Target) roundTripper() http.RoundTripper {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
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
// The request that it was made for may be over by then: the transport keeps it
// for another.
func (t *Target) connectHTTP(parent context.Context, _, _ string) (net.Conn, error) {
	l := t.lease()
	ctx, cancel := context.WithTimeout(parent, l.policy.timeout)
	defer cancel()
	nc, err := l.connect(ctx)
	err = l.timedOut(parent, err)
	t.connected(classify(parent, err), err)
	if err != nil {
		return nil, &connectError{err}
	}
	return nc, nil
}

// connected counts a dial for plain requests. One that went well says nothing
// good of the target yet: even one that hangs takes connections.
func (t *Target) connected(r result, err error) {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.dials++
	t.pool.results[r]++
	if r == resultFailed || r == resultTimeout {
		t.failure(time.Now(), err)
	}
}
