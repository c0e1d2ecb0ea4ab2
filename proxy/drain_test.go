package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest"

	"github.com/stentproxy/stent/config"
)

// A client that does not answer its close frame holds up no process beyond
// the drain, however long timeouts.close is.
func TestDrainEnds(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(`
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 100ms}
routes: [{path: /*, upstream: app, timeouts: {close: 1h}}]
upstreams: {app: {targets: ["`+echo(t)+`"]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	c, _, err := websocket.Dial(t.Context(), "ws://"+p.Addrs()[0].String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow() // and it never reads
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(30 * time.Second): // the stop timeouts would be over before the hour
		t.Fatal("still draining")
	}
}

// A drain whose clients all leave by themselves is over with the last one,
// however long closes would have been paced.
func TestDrainEndsWithTheLastClient(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(`
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 1h}
routes: [{path: /*, upstream: app}]
upstreams: {app: {targets: ["`+echo(t)+`"]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var clients []*websocket.Conn
	for range 3 {
		c, _, err := websocket.Dial(t.Context(), "ws://"+p.Addrs()[0].String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		clients = append(clients, c)
	}
	cancel()
	for _, c := range clients {
		c.CloseNow()
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("still pacing closes of nobody")
	}
}
