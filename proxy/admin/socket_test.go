package admin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/thejerf/suture/v4"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
)

// newServer returns the admin listener of a proxy that does not run.
func newServer(t *testing.T, address string) *Server {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(oneRoute("ws://127.0.0.1:1", "")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Admin.Address = address
	p, err := proxy.New(cfg, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stent.sock")
	r := run(t, "admin: {address: \"unix:"+path+"\"}\n"+oneRoute("ws://127.0.0.1:1", ""), Options{})
	if got := r.request("GET", "/api/sessions", nil); got.status != http.StatusOK {
		t.Errorf("got %d %s", got.status, got.body)
	}
	r.wantProblem(r.request("GET", "/api/sessions", nil, "Origin: http://evil.example"), http.StatusForbidden)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|socketMode; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
	t.Run("busy", func(t *testing.T) {
		if err := newServer(t, "unix:"+path).Listen(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen: %v", err)
		}
		if got := r.request("GET", "/healthz", nil); got.status != http.StatusOK {
			t.Errorf("the first one's answer: %d", got.status)
		}
	})
}

func TestUnixSocketFiles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string // in the error; empty for none
	}{
		{"nothing there", func(*testing.T, string) {}, ""},
		{"left behind", func(t *testing.T, path string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}, ""},
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		{"a link", func(t *testing.T, path string) {
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		{"no folder", func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "run", "stent.sock")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			tt.prepare(t, path)
			before, _ := os.Lstat(path)
			s := newServer(t, "unix:"+path)
			err := s.Listen(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the socket file is left: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if key, ok := errors.AsType[*config.KeyError](err); !ok || key.Path != "admin.address" {
				t.Errorf("%v names no key", err)
			}
			if after, _ := os.Lstat(path); (before == nil) != (after == nil) {
				t.Error("what stood there is gone")
			}
		})
	}
}

func TestServeOff(t *testing.T) {
	s := newServer(t, config.AdminOff)
	if err := s.Listen(t.Context()); err != nil {
		t.Error(err)
	}
	if addr := s.Addr(); addr != nil {
		t.Errorf("address %v", addr)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, suture.ErrDoNotRestart) {
		t.Errorf("serve: %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newServer(t, taken.Addr().String())
	if err := s.Listen(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("serve: %v", err)
	}
}

// TestServeAgain serves, as a supervisor would, one time after another, and
// ends with connections in every state.
func TestServeAgain(t *testing.T) {
	s := newServer(t, "127.0.0.1:0")
	for range 2 {
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()

		for _, sent := range []string{"", "GET /healthz HTTP/1.1\r\nHost: lo", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"} {
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(sent, "\r\n\r\n") {
				continue
			}
			answer := make([]byte, 12)
			if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 200" {
				t.Errorf("got %q, %v", answer, err)
			}
		}
		cancel()
		if err := receive(t, done); !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
		if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
			conn.Close()
			t.Error("the socket is still open")
		}
	}
}
