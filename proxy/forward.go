package proxy

import (
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// sendUp sends one plain request up and returns the answer. The target is
// chosen by r and by uri, as UpURI returns it; at makes what is sent to one
// whose URLs begin with base, and is asked again where that can't be connected
// to. An error that is a *Problem is the answer.
type sendUp func(r *http.Request, uri string, at func(base *url.URL) (*http.Request, error)) (*http.Response, error)

// forward proxies the plain HTTP requests of one endpoint (http: true).
type forward struct {
	endpoint *Endpoint
	send     sendUp
	log      *zap.Logger
	errorLog *log.Logger
	// bodyStall is how long a client may pause inside its body.
	bodyStall time.Duration
}

// newForward returns the handler of an endpoint's plain requests.
func newForward(e *Endpoint, send sendUp, log *zap.Logger) *forward {
	// What httputil says, the error handler says better.
	quiet, err := zap.NewStdLogAt(log, zapcore.DebugLevel)
	if err != nil { // there is such a level
		quiet = zap.NewStdLog(log)
	}
	return &forward{endpoint: e, send: send, log: log, errorLog: quiet, bodyStall: bodyStall}
}

// ServeHTTP implements http.Handler.
func (f *forward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := plug.From(r)
	body := newPacedBody(w, r, f.bodyStall)
	// An upstream may answer before it has the whole request. net/http would
	// then throw a part of the body away, unless the connection ends with it;
	// where it is told to keep the body, its next request fails instead.
	overtake := func() {
		if body.pending() {
			w.Header().Set("Connection", "close")
		}
	}
	up := UpHeader(r, info)
	if plug.HasToken(r.Header["Te"], "trailers") {
		up.Set("Te", "trailers")
	}
	// A request that asks for another protocol gets the plain answer (RFC
	// 9110 section 7.8). ReverseProxy would pass the wish on.
	r.Header.Del("Upgrade")

	uri := f.endpoint.UpURI(r)
	var answer *http.Response
	defer func() {
		// ReverseProxy does not, where it can't pass the answer on.
		if answer != nil {
			answer.Body.Close()
		}
	}()
	proxy := httputil.ReverseProxy{
		Transport: roundTripper(func(out *http.Request) (_ *http.Response, err error) {
			answer, err = f.send(r, uri, func(base *url.URL) (*http.Request, error) { return f.at(base, uri, out) })
			return answer, err
		}),
		FlushInterval: -1,
		BufferPool:    copyBuffers{},
		ErrorLog:      f.errorLog,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.Header = up
			if p.Out.Body != nil {
				body.Reader, p.Out.Body = p.Out.Body, body
				p.Out.Trailer = body.trailer
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			info.ApplyResponse(answer.Header)
			overtake()
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			overtake()
			own, ok := errors.AsType[*Problem](err)
			switch {
			case body.stalled():
				requestTimeout().ServeHTTP(w, r)
			case r.Context().Err() != nil:
				panic(http.ErrAbortHandler) // the client is gone: no answer
			case body.broken.Load():
				badRequest("the body is malformed").ServeHTTP(w, r)
			case ok:
				own.ServeHTTP(w, r)
			default:
				f.fail(w, r, err)
			}
		},
	}
	proxy.ServeHTTP(w, r)
}

// at returns out as it goes to a target whose URLs begin with base.
func (f *forward) at(base *url.URL, uri string, out *http.Request) (*http.Request, error) {
	target, ok := upURL(base, behind(strings.TrimSuffix(base.EscapedPath(), "/"), uri))
	if !ok {
		return nil, badRequest("the path has characters that can't be sent on unchanged")
	}
	r := *out
	r.URL = target
	if f.endpoint.Route.HostHeader == config.HostTarget {
		r.Host = base.Host
	}
	return &r, nil
}

// roundTripper makes a RoundTripper of a function.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// fail answers a request that err kept from its upstream.
func (f *forward) fail(w http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	info := plug.From(r)
	f.log.Warn("request not proxied",
		zap.String("request_id", info.RequestID),
		zap.String("route", info.Route),
		zap.String("upstream", f.endpoint.Route.Upstream),
		zap.Int("status", problem.Status),
		zap.Error(err))
	problem.ServeHTTP(w, r)
}

// problemOf says what a failed round trip means for the client.
func problemOf(err error) *Problem {
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return gatewayTimeout()
	}
	return dialProblem(err)
}

// upURL returns the URL at base whose request target is uri, byte for byte;
// not ok where url.URL can't hold that.
func upURL(base *url.URL, uri string) (u *url.URL, ok bool) {
	path, query, found := strings.Cut(uri, "?")
	u = &url.URL{Scheme: base.Scheme, Host: base.Host, RawQuery: query, ForceQuery: found && query == ""}
	if strings.HasPrefix(path, "//") {
		// Opaque would be taken for an authority.
		u.RawPath = path
		u.Path, _ = url.PathUnescape(path)
	} else {
		u.Opaque = path
	}
	return u, u.RequestURI() == uri
}

// copyBuffers lends the buffers through which bodies are copied.
type copyBuffers struct{}

const copyBuffer = 32 << 10

var copyPool = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// Get implements httputil.BufferPool.
func (copyBuffers) Get() []byte { return copyPool.Get().(*[copyBuffer]byte)[:] }

// Put implements httputil.BufferPool.
func (copyBuffers) Put(b []byte) { copyPool.Put((*[copyBuffer]byte)(b)) }
