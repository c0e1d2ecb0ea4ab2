package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest"

	"github.com/stentproxy/stent/config"
)

// start runs a proxy with the YAML and returns its URL.
func start(t *testing.T, yaml string, handlers map[string]NewHandler) (*Proxy, string) {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte("listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"off\"}\nshutdown: {drain: 1s}\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{Log: zaptest.NewLogger(t), Handlers: handlers})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return p, "ws://" + p.Addrs()[0].String()
}

// echo starts a backend that sends back what it gets.
func echo(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			typ, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), typ, data); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "http", "ws", 1)
}

type passAll struct{}

func (passAll) Message(*Session, Message) Result { return OK() }

var testHandlers = map[string]NewHandler{"pass": func(any) (func() Handler, error) { return func() Handler { return passAll{} }, nil }}

func TestEcho(t *testing.T) {
	up := echo(t)
	for _, tc := range []struct {
		name, route string
		mode        websocket.CompressionMode
	}{
		{"relay", "", websocket.CompressionDisabled},
		{"relay with deflate", "", websocket.CompressionContextTakeover},
		{"relay with continuity", "continuity: {}", websocket.CompressionContextTakeover},
		{"message", "handlers: [pass]", websocket.CompressionContextTakeover},
		{"message with deflate", "handlers: [pass]\n    compression: terminate", websocket.CompressionContextTakeover},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, url := start(t, fmt.Sprintf("routes:\n  - path: /*\n    upstream: app\n    %s\nupstreams: {app: {targets: [%q]}}\n", tc.route, up), testHandlers)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: tc.mode, CompressionThreshold: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.SetReadLimit(-1)
			for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
				want := strings.Repeat("é", size/2) + strings.Repeat("x", size%2)
				if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
					t.Fatal(err)
				}
				_, got, err := c.Read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != want {
					t.Fatalf("size %d: got %d bytes", size, len(got))
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}
