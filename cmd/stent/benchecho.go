package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/stentproxy/stent/cmd/stent/bench"
)

type benchEchoCmd struct {
	Listen string `default:"127.0.0.1:9000" placeholder:"ADDRESS" help:"Where it listens (by default ${default})."`
}

// Run serves a lean echo until a signal.
func (c benchEchoCmd) Run(s streams) error {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for the echo: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	echo := bench.NewServer()
	defer echo.Close()
	server := &http.Server{Handler: echo, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(s.out, "echo at ws://%s\n", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the echo: %w", err)
	}
	return nil
}
