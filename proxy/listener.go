package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/relay"
)

const (
	// idleTimeout is how long a connection may wait between two plain
	// requests: longer than the 60 s after which the usual load balancers give
	// theirs up, so that they never send into a closing connection.
	idleTimeout = 75 * time.Second
	// headerSlop is what net/http reads beyond MaxHeaderBytes before it
	// answers 431.
	headerSlop = 4096
)

// keepAlive finds clients that vanished without a word. Sessions have pings
// of their own, at shorter intervals: there it stays quiet.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

// Listener accepts clients on one address and serves their requests. It is a
// suture service; its socket is bound before and outlives a restart.
type Listener struct {
	address string
	socket  net.Listener
	server  *http.Server
	log     *zap.Logger
	certs   *certificates // nil without TLS
	limits  config.Limits
	terms   atomic.Pointer[terms]
	// neighbours is set before Serve; nil for a listener on its own.
	neighbours *neighbours
	// open counts the connections that net/http serves; hijacked ones have
	// left it.
	open sync.WaitGroup
	// draining is closed when Drain begins, drained when it is over.
	draining, drained chan struct{}
	drain             sync.Once
}

// Listen binds the address of c and makes ready to serve its clients with
// handler. An error about a part of c is a config.KeyError.
func Listen(ctx context.Context, c config.Listener, limits config.Limits, handler http.Handler, log *zap.Logger) (*Listener, error) {
	l := &Listener{
		address:  c.Address,
		limits:   limits,
		log:      log.With(zap.String("listener", c.Address)),
		draining: make(chan struct{}),
		drained:  make(chan struct{}),
	}
	if c.TLS != nil {
		var err error
		if l.certs, err = newCertificates(*c.TLS, l.log); err != nil {
			return nil, config.Within("tls", err)
		}
	}
	l.agree(c)
	errorLog, err := zap.NewStdLogAt(l.log, zapcore.DebugLevel)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Address, err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	l.server = &http.Server{
		Handler:           l.front(handler),
		Protocols:         &protocols,
		ReadHeaderTimeout: limits.HandshakeTimeout.Std(),
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    max(int(limits.HeaderSize)-headerSlop, 1),
		ErrorLog:          errorLog,
		ConnState:         l.count,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), listenerKey{}, l)
		},
		DisableGeneralOptionsHandler: true,
		// An authority wants the handshake and nothing more: a request behind
		// it would come without the certificate that clients need.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			acmeProtocol: func(*http.Server, *tls.Conn, http.Handler) {},
		},
	}
	listen := net.ListenConfig{KeepAliveConfig: keepAlive}
	socket, err := listen.Listen(ctx, "tcp", c.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("the address is in use, perhaps by another stent: %w", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, config.Within("address", fmt.Errorf("listen on %s: %w", c.Address, err))
	}
	l.socket = socket
	if l.certs != nil {
		l.certs.keeper.address = socket.Addr().(*net.TCPAddr)
	}
	return l, nil
}

// Addr returns the bound address.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// String names the service in the supervision tree and in logs.
func (l *Listener) String() string { return "listener " + l.address }

// Reload takes over what may change while the address stays: certificates,
// trusted proxies, PROXY headers and the redirect to https. After an error everything is as before.
func (l *Listener) Reload(c config.Listener) error {
	apply, err := l.prepare(c)
	if err == nil {
		apply()
	}
	return err
}

// prepare is the part of Reload that can fail; apply is the rest.
func (l *Listener) prepare(c config.Listener) (apply func(), err error) {
	var certs func()
	switch {
	case (c.TLS == nil) != (l.certs == nil):
		return nil, config.Within("tls", errors.New("a running listener can't begin or cease to use TLS"))
	case c.TLS != nil:
		if certs, err = l.certs.prepare(*c.TLS); err != nil {
			return nil, config.Within("tls", err)
		}
	}
	return func() {
		if certs != nil {
			l.certs.use(certs)
		}
		l.agree(c)
	}, nil
}

// terms are those on which a listener takes clients.
type terms struct {
	trusted       []netip.Prefix
	proxyProtocol bool
	redirect      bool
}

func (l *Listener) agree(c config.Listener) {
	t := &terms{proxyProtocol: c.ProxyProtocol, redirect: c.RedirectHTTPS}
	for _, p := range c.TrustedProxies {
		t.trusted = append(t.trusted, p.Prefix)
	}
	l.terms.Store(t)
}

type listenerKey struct{}

// trustedProxies returns those of the listener that r came in by.
func trustedProxies(r *http.Request) []netip.Prefix {
	if l, ok := r.Context().Value(listenerKey{}).(*Listener); ok {
		return l.terms.Load().trusted
	}
	return nil
}

// Serve accepts clients until ctx ends or the listener is drained. It returns
// when every connection that did not become a session is closed. When
// accepting fails it may be called again.
func (l *Listener) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { l.socket.Close() })()

	var socket net.Listener = acceptor{l}
	if l.certs != nil {
		socket = tls.NewListener(socket, l.certs.config())
		keeping, stop := context.WithCancel(ctx)
		var keeper sync.WaitGroup
		keeper.Go(func() { l.certs.keeper.run(keeping) })
		defer keeper.Wait()
		defer stop()
	}
	err := l.server.Serve(socket)
	select {
	case <-l.draining:
		select {
		case <-l.drained:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	default:
		return fmt.Errorf("accept on %s: %w", l.address, err)
	}
	l.socket.Close()
	l.server.Close()
	l.open.Wait()
	return suture.ErrDoNotRestart
}

// Drain closes the socket, so that new clients are refused, and waits for the
// requests under way, until ctx ends. Sessions are no longer the listener's.
func (l *Listener) Drain(ctx context.Context) error {
	var err error
	l.drain.Do(func() {
		close(l.draining)
		defer close(l.drained)
		l.socket.Close()
		err = l.server.Shutdown(ctx)
	})
	if err != nil {
		return fmt.Errorf("drain listener %s: %w", l.address, err)
	}
	return nil
}

// Close closes the socket of a listener that is never served.
func (l *Listener) Close() error { return l.socket.Close() }

func (l *Listener) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.open.Add(1)
	case http.StateHijacked, http.StateClosed:
		l.open.Done()
	case http.StateActive, http.StateIdle:
	}
}

// acceptor is the listener's socket as net/http sees it.
type acceptor struct{ l *Listener }

// Accept implements net.Listener.
func (a acceptor) Accept() (net.Conn, error) {
	conn, err := a.l.socket.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		// Out of descriptors, most likely. net/http waits and tries again.
		a.l.log.Warn("client not accepted", zap.Error(err))
	}
	if err != nil {
		return nil, err
	}
	socket := conn
	terms := a.l.terms.Load()
	if terms.proxyProtocol && contains(terms.trusted, addrOf(conn.RemoteAddr())) {
		conn = &proxied{Conn: conn, timeout: a.l.limits.HandshakeTimeout.Std(), log: a.l.log}
	}
	if terms.redirect && a.l.certs != nil {
		conn = &mistaken{Conn: conn, headerSize: int64(a.l.limits.HeaderSize)}
	}
	if a.l.certs != nil {
		conn = relay.NewFooting(conn, socket)
	}
	return conn, nil
}

// Close implements net.Listener. The socket stays bound, for the next Serve.
func (a acceptor) Close() error { return nil }

// Addr implements net.Listener.
func (a acceptor) Addr() net.Addr { return a.l.socket.Addr() }
