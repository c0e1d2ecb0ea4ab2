package demo

import (
	"context"
	_ "embed" // for the page
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	channels "github.com/stentproxy/stent/cmd/chat/room"
)

//go:embed page.html
var page []byte

// Backend is a WebSocket server with a page, a room and an echo. It can be
// killed as a crash would, and comes back at the same address.
type Backend struct {
	// Pause is how long it stays away after a Kill; zero means two seconds.
	Pause time.Duration

	listener *net.TCPListener
	killed   chan struct{}
}

// NewBackend listens on address; Serve serves there.
func NewBackend(address string) (*Backend, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the demo backend: %w", err)
	}
	return &Backend{listener: l.(*net.TCPListener), killed: make(chan struct{}, 1)}, nil
}

// Address is where the backend listens, as host:port.
func (b *Backend) Address() string { return b.listener.Addr().String() }

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
	defer b.listener.Close()
	for {
		if err := b.live(ctx); err != nil {
			return fmt.Errorf("serve the demo backend: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := b.away(ctx); err != nil {
			return fmt.Errorf("restart the demo backend: %w", err)
		}
	}
}

// past is a deadline that wakes whoever waits.
var past = time.Unix(1, 0)

// away resets whoever connects until the pause is over or ctx ends. The
// socket stays, or another program could take the port meanwhile.
func (b *Backend) away(ctx context.Context) error {
	pause := b.Pause
	if pause == 0 {
		pause = 2 * time.Second
	}
	if err := b.listener.SetDeadline(time.Now().Add(pause)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { b.listener.SetDeadline(past) })()
	for {
		conn, err := b.listener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return b.listener.SetDeadline(time.Time{})
		}
		if err != nil {
			return err
		}
		reset(conn)
	}
}

// live is one life of the backend: it ends with ctx or with a Kill, and
// nothing of it is left then.
func (b *Backend) live(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePage)
	mux.Handle("GET /room", new(room))
	mux.HandleFunc("GET /echo", echo)
	mux.Handle("GET "+channels.Path, newChannels())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handlers := &joined{Handler: mux}
	defer handlers.wait()
	life, end := context.WithCancel(ctx)
	defer end()

	conns := &conns{TCPListener: b.listener}
	server := &http.Server{
		Handler:           handlers,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return life },
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(conns) }()
	select {
	case <-ctx.Done():
	case <-b.killed:
	case err := <-done:
		return err
	}
	server.Close()
	err := <-done
	conns.resetAll() // before the end of life lets a handler say goodbye
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// joined is a handler whose calls can be waited for: net/http does not wait
// for those that took their connection over.
type joined struct {
	http.Handler

	mu      sync.Mutex
	over    bool
	running sync.WaitGroup
}

// ServeHTTP implements http.Handler; after wait it does nothing.
func (j *joined) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j.mu.Lock()
	if j.over {
		j.mu.Unlock()
		return
	}
	j.running.Add(1)
	j.mu.Unlock()
	defer j.running.Done()
	j.Handler.ServeHTTP(w, r)
}

// wait returns when the last call has.
func (j *joined) wait() {
	j.mu.Lock()
	j.over = true
	j.mu.Unlock()
	j.running.Wait()
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'")
	w.Write(page)
}

// conns is the listener of one life. It remembers its connections: net/http
// forgets those that became WebSockets.
type conns struct {
	*net.TCPListener

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
	accepted, err := l.TCPListener.Accept()
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

// Close ends Accept but leaves the socket to the next life.
func (l *conns) Close() error { return l.SetDeadline(past) }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// resetAll resets every connection.
func (l *conns) resetAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		reset(c.Conn)
	}
	clear(l.open)
}

// reset closes a connection so that its peer sees a TCP reset.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
