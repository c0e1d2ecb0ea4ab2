package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stentproxy/stent/cmd/stent/demo"
	"github.com/stentproxy/stent/config"
)

type demoCmd struct {
	Proxy   demoProxyCmd   `cmd:"" default:"withargs" help:"Run a backend with the proxy in front of it (the default)."`
	Backend demoBackendCmd `cmd:"" help:"Run the backend alone."`
}

type demoProxyCmd struct {
	Listen string `default:"127.0.0.1:4000" placeholder:"ADDRESS" help:"Where to open the demo (by default ${default})."`
	Admin  string `default:"127.0.0.1:4001" placeholder:"ADDRESS" help:"Where the admin API listens, also unix:/path, or off (by default ${default})."`
}

// Run serves the demo until a signal.
func (c demoProxyCmd) Run(s streams) error {
	backend, err := demo.NewBackend("127.0.0.1:0")
	if err != nil {
		return err
	}
	controls, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the demo's control: %w", err)
	}
	cfg, err := demo.Config(demo.Addresses{
		Listen: c.Listen, Admin: c.Admin, Backend: backend.Address(), Control: controls.Addr().String(),
	})
	if err != nil {
		return usage("%w", err)
	}
	api := new(adminClient) // of nothing, where there is no API
	if c.Admin != config.AdminOff {
		if api, err = (adminFlags{Admin: c.Admin}).client(); err != nil {
			return err
		}
	}
	log, err := newLogger(cfg.Log, s.err)
	if err != nil {
		return err
	}
	defer log.Sync()

	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	parts.Go(func() {
		if err := backend.Serve(ctx); err != nil {
			log.Error(err.Error())
		}
	})
	var kill func() // of use only where clients outlive it
	if cfg.Routes[0].Continuity != nil {
		kill = backend.Kill
	}
	control := &http.Server{Handler: demo.NewControl(api.base, &api.http, kill), ReadHeaderTimeout: 10 * time.Second}
	parts.Go(func() { control.Serve(controls) })
	defer control.Close()

	same := func() (*config.Config, error) { return cfg, nil } // SIGHUP has nothing to re-read
	err = serve(cfg, same, log, func() { fmt.Fprintf(s.out, banner, dialable(c.Listen), c.hints()) })
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w\n--listen and --admin choose other addresses", err)
	}
	return err
}

const banner = `
  stent demo: a small backend, and the proxy in front of it

  Open   http://%[1]s
         in two tabs, and let them talk: every message passes through the proxy;
         then kill the backend with the page's button: nobody is disconnected

%[2]s  Ctrl-C ends it.

`

// hints are commands that ask the admin API, wherever it is.
func (c demoProxyCmd) hints() string {
	if c.Admin == config.AdminOff {
		return ""
	}
	flag, base := "", "http://"+c.Admin
	if c.Admin != config.DefaultAdmin().Address {
		flag = " --admin " + c.Admin
	}
	if path, ok := strings.CutPrefix(c.Admin, "unix:"); ok {
		base = "--unix-socket " + path + " http://localhost"
	}
	return fmt.Sprintf(`  Try    stent sessions%[1]s      what the proxy knows of each client
         stent upstreams%[1]s     where they are connected to
         stent tree%[1]s          who supervises them
         curl %[2]s/metrics

`, flag, base)
}

// dialable is a listener's address as a client on this machine would use it.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

type demoBackendCmd struct {
	Listen string `default:"127.0.0.1:9000" placeholder:"ADDRESS" help:"Where the backend listens (by default ${default})."`
}

// Run serves the backend until a signal.
func (c demoBackendCmd) Run(s streams) error {
	backend, err := demo.NewBackend(c.Listen)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	fmt.Fprintf(s.out, "demo backend at ws://%s: /room is a chat, /socket/websocket the same for Phoenix clients, /echo an echo\n", backend.Address())
	return backend.Serve(ctx)
}
