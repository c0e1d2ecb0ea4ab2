package demo

import (
	"context"
	_ "embed" // for the page
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed page.html
var page []byte

// Backend is a WebSocket server with a page, a room and an echo. It can be
// killed as a crash would, and comes back at the same address.
type Backend struct {
	// Pause is how long it stays away after a Kill; zero means two seconds.
	Pause time.Duration

	address string
	first   net.Listener
	killed  chan struct{}
}

// NewBackend listens on address; Serve serves there.
func NewBackend(address string) (*Backend, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the demo backend: %w", err)
	}
	return &Backend{address: l.Addr().String(), first: l, killed: make(chan struct{}, 1)}, nil
}

// Address is where the backend listens, as host:port.
func (b *Backend) Address() string { return b.address }

// Kill ends the backend with every connection reset, as the end of its
// process would. It comes back by itself.
func (b *Backend) Kill() {
	select {
	case b.killed <- struct{}{}:
	default: // it is already being killed
	}
}

// Serve runs the backend until ctx ends.
func (b *Backend) Serve(ctx context.Context) error {
	l := b.first
	for {
		if err := b.live(ctx, l); err != nil || ctx.Err() != nil {
			return err
		}
		pause := b.Pause
		if pause == 0 {
			pause = 2 * time.Second
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		var err error
		if l, err = net.Listen("tcp", b.address); err != nil {
			return fmt.Errorf("restart the demo backend: %w", err)
		}
	}
}

// live is one life of the backend: it ends with ctx or with a Kill, and
// nothing of it is left then.
func (b *Backend) live(ctx context.Context, l net.Listener) error {
	life, end := context.WithCancel(ctx)
	defer end()

	var handlers sync.WaitGroup
	defer handlers.Wait()
	joined := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			h(w, r)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePage)
	mux.HandleFunc("GET /room", joined(new(room).ServeHTTP))
	mux.HandleFunc("GET /echo", joined(echo))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })

	conns := &conns{Listener: l}
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return life },
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(conns) }()
	var err error
	select {
	case <-ctx.Done():
	case <-b.killed:
	case err = <-done:
		return fmt.Errorf("serve the demo backend: %w", err)
	}
	server.Close()
	conns.reset() // before any handler can say goodbye
	end()
	if err = <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the demo backend: %w", err)
	}
	return nil
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'")
	w.Write(page)
}

// conns is a listener that remembers its connections: net/http forgets those
// that became WebSockets.
type conns struct {
	net.Listener

	mu   sync.Mutex
	open map[*conn]struct{}
}

// conn is a connection that its listener knows.
type conn struct {
	net.Conn
	of *conns
}

// Accept implements net.Listener.
func (l *conns) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = make(map[*conn]struct{})
	}
	l.open[c] = struct{}{}
	return c, nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// reset ends every connection with a TCP reset.
func (l *conns) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Conn.Close()
	}
	clear(l.open)
}
