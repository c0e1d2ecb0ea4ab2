package upstream

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stentproxy/stent/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a scripted server: it reads one request from each connection
// and leaves the rest to a test's function.
type backend struct {
	net.Listener
	children sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
	dials    int
}

type script func(c net.Conn, req *http.Request)

func listen(t testing.TB, serve script) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, serve)
}

func listenUnix(t testing.TB, serve script) *backend {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, serve)
}

func serveOn(t testing.TB, l net.Listener, serve script) *backend {
	b := &backend{Listener: l, open: make(map[net.Conn]bool)}
	b.children.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.dials++
			b.open[c] = true
			b.mu.Unlock()
			b.children.Go(func() {
				defer func() {
					c.Close()
					b.mu.Lock()
					delete(b.open, c)
					b.mu.Unlock()
				}()
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					serve(c, req)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for c := range b.open {
			c.Close()
		}
		b.mu.Unlock()
		b.children.Wait()
	})
	return b
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

// url is the backend's target URL.
func (b *backend) url() string {
	if b.Addr().Network() == "unix" {
		return "unix:" + b.Addr().String()
	}
	return "ws://" + b.Addr().String()
}

// nobody returns the URL of a port that refuses connections, and that nobody
// else gets: its socket is bound and does not listen.
func nobody(t testing.TB) string {
	t.Helper()
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(s) })
	if err := syscall.Bind(s, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(s)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("ws://127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

func acceptOf(req *http.Request) string {
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// accept is a 101 with more header lines.
func accept(req *http.Request, lines string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		acceptOf(req) + "\r\n" + lines + "\r\n"
}

// welcome accepts and waits for the client to go.
func welcome(c net.Conn, req *http.Request) {
	_, _ = io.WriteString(c, accept(req, ""))
	_, _ = io.Copy(io.Discard, c)
}

// silent takes the request and says nothing until the client goes.
func silent(c net.Conn, _ *http.Request) { _, _ = io.Copy(io.Discard, c) }

// say answers with the bytes as they are, and closes.
func say(answer string) script {
	return func(c net.Conn, _ *http.Request) { _, _ = io.WriteString(c, answer) }
}

// upstreamOf is a config with one target for each URL.
func upstreamOf(urls ...string) config.Upstream {
	u := config.DefaultUpstream()
	for _, url := range urls {
		u.Targets = append(u.Targets, config.Target{URL: url, Weight: 1})
	}
	return u
}

// update gives p one pool called "app".
func update(t testing.TB, p *Pools, u config.Upstream) *Pool {
	t.Helper()
	if err := p.Update(map[string]config.Upstream{"app": u}); err != nil {
		t.Fatal(err)
	}
	return p.Get("app")
}

func newPoolOf(t testing.TB, u config.Upstream) *Pool {
	t.Helper()
	return update(t, NewPools(Options{}), u)
}

// serve runs p.Serve until the returned function is called.
func serve(t testing.TB, p *Pools) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Serve returned %v, want %v", err, context.Canceled)
		}
	})
	t.Cleanup(stop)
	return stop
}

func milliseconds(n int) config.Duration { return config.Duration(time.Duration(n) * time.Millisecond) }

func targetNamed(t testing.TB, p *Pools, name string) TargetInfo {
	t.Helper()
	for _, pool := range p.Snapshot() {
		for _, target := range pool.Targets {
			if target.Name == name {
				return target
			}
		}
	}
	t.Fatalf("no target %q in %+v", name, p.Snapshot())
	return TargetInfo{}
}
