package admin

import (
	"context"
	"net/http"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
)

// TestReadyz follows readiness through the life of a process.
func TestReadyz(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte("listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\"}\n"+oneRoute("ws://127.0.0.1:1", "")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(cfg, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := serveAlone(t, server)
	s.wantProblem(s.request("GET", "/readyz", nil), http.StatusServiceUnavailable)
	if got := s.request("GET", "/healthz", nil); got.status != http.StatusOK {
		t.Errorf("healthz while starting: %d", got.status)
	}
}

func TestReadyzWhileDraining(t *testing.T) {
	r := run(t, "shutdown: {delay: 1h}\n"+oneRoute("ws://127.0.0.1:1", ""), Options{})
	if got := r.request("GET", "/readyz", nil); got.status != http.StatusOK || string(got.body) != "ready\n" {
		t.Errorf("got %d %q", got.status, got.body)
	}
	r.stop()
	r.eventually("readiness has failed", func() bool { return r.request("GET", "/readyz", nil).status == http.StatusServiceUnavailable })
	if got := r.request("GET", "/healthz", nil); got.status != http.StatusOK {
		t.Errorf("healthz while draining: %d", got.status)
	}
	r.proxy.Abort()
}

// serveAlone serves an admin API whose proxy does not run.
func serveAlone(t *testing.T, server *Server) *running {
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	r := &running{t: t, server: server, client: &http.Client{Transport: &http.Transport{}, Timeout: patience}, api: "http://" + server.Addr().String()}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}
