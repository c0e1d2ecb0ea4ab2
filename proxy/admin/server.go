// Package admin serves a running proxy's admin API, on a listener of its
// own: health, metrics, and what an operator may see and do of sessions,
// upstreams and the configuration.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
)

// Options are what a Server needs beside the proxy. The zero value works.
type Options struct {
	// Log is where requests that change something are logged; nil is nowhere.
	Log *zap.Logger
	// Reload reads the configuration again and puts it into force, for POST
	// /api/reload. Calls may overlap. Nil means that this process can't.
	Reload func(context.Context) error
}

// Bounds of one request and of a connection between two.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second // a pushed message of 1 MiB included
	writeTimeout  = 30 * time.Second
	idleTimeout   = 75 * time.Second
	headerSize    = 16 << 10
	// stopTimeout is how long requests under way may take once the Server is
	// to end; it is less than a branch of the supervision tree has.
	stopTimeout = time.Second
)

// Server is the admin listener. It is a suture service.
type Server struct {
	// static
	config  config.Admin // as it was bound
	log     *zap.Logger
	handler http.Handler

	mu     sync.Mutex
	socket net.Listener // bound and not served yet
	addr   net.Addr
}

// New returns the admin listener of p, not bound yet. Its address is that of
// p's configuration now, and its token that of the one in force at each
// request. Where the configuration switches it off, it does nothing.
func New(p *proxy.Proxy, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	log := o.Log.Named("admin")
	a := &api{proxy: p, log: log, reload: o.Reload}
	metrics, err := metricsHandler(p, log)
	if err != nil {
		return nil, fmt.Errorf("prepare admin metrics: %w", err)
	}
	c := p.Config().Admin
	network, address, _ := c.Listen()
	g := newGuard(network, address, func() config.Admin { return p.Config().Admin }, log)
	return &Server{config: c, log: log, handler: g.wrap(a.routes(metrics))}, nil
}

// String names the service in the supervision tree and in logs.
func (s *Server) String() string { return "admin " + s.config.Address }

// Addr returns the bound address, or nil before Listen and where the admin
// API is off.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Listen binds the address; Serve does it where it was not done. An error
// carries the key path of the address.
func (s *Server) Listen(ctx context.Context) error {
	network, address, on := s.config.Listen()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !on || s.socket != nil {
		return nil
	}
	socket, err := listen(ctx, network, address)
	if err != nil {
		return config.Within("admin.address", fmt.Errorf("listen on %s: %w", s.config.Address, err))
	}
	s.socket, s.addr = socket, socket.Addr()
	return nil
}

// Close closes the socket of a Server that is never served.
func (s *Server) Close() error {
	if socket := s.take(); socket != nil {
		return socket.Close()
	}
	return nil
}

// take makes the caller the owner of the bound socket.
func (s *Server) take() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	socket := s.socket
	s.socket = nil
	return socket
}

// Serve answers requests until ctx ends. It returns when the last one is
// answered or given up, and every connection is closed.
func (s *Server) Serve(ctx context.Context) error {
	if _, _, on := s.config.Listen(); !on {
		return suture.ErrDoNotRestart
	}
	if err := s.Listen(ctx); err != nil {
		return err
	}
	socket := s.take()
	if socket == nil {
		return errors.New("serve admin API: it is served already")
	}
	defer socket.Close()

	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	var open sync.WaitGroup // connections
	server, err := s.server(requests, &open)
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_ = server.Shutdown(ctx) // what it left is closed below
	})
	err = server.Serve(socket)
	if stop() {
		err = fmt.Errorf("serve admin API on %s: %w", s.config.Address, err)
	} else {
		<-stopped
		err = ctx.Err()
	}
	cancel()
	server.Close()
	open.Wait()
	return err
}

// server returns what serves one binding of the socket. Requests end with
// ctx; open counts the connections.
func (s *Server) server(ctx context.Context, open *sync.WaitGroup) (*http.Server, error) {
	errorLog, err := zap.NewStdLogAt(s.log, zapcore.DebugLevel)
	if err != nil {
		return nil, fmt.Errorf("serve admin API: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           s.handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerSize,
		ErrorLog:          errorLog,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateHijacked, http.StateClosed:
				open.Done()
			case http.StateActive, http.StateIdle:
			}
		},
		DisableGeneralOptionsHandler: true,
	}, nil
}
