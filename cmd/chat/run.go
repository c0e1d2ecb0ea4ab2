package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/admin"
)

// runCmd is the whole application: stent as a library, and the backend as a
// process behind it.
type runCmd struct {
	Listen string        `default:"127.0.0.1:4000" placeholder:"ADDRESS" help:"Where to open the chat (by default ${default})."`
	Admin  string        `default:"127.0.0.1:4001" placeholder:"ADDRESS" help:"Where stent's admin API listens (by default ${default}). Without one the proxy is not told of logouts."`
	Data   string        `placeholder:"FOLDER" help:"Where the database is kept (by default in a temporary folder, which is removed at the end)."`
	Pause  time.Duration `default:"2s" help:"How long a killed backend stays away (by default ${default})."`
	Log    string        `default:"warn" help:"How much stent logs: debug, info, warn or error (by default ${default})."`
}

// Run serves until a signal.
func (c runCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	return c.serve(ctx, func(base string) { fmt.Printf(banner, base, c.Admin) })
}

const banner = `
  A chat behind stent

  Open   %[1]s
         in two tabs, sign up in each, and write to each other
  Mail   %[1]s/sent_mails
         has the passwords: nothing leaves this machine, unless CHAT_SMTP says so
  Try    the button "Kill the backend": its process gets SIGKILL; nobody is
         disconnected, and what was acknowledged is there
         stent sessions --admin http://%[2]s

  Ctrl-C ends it.

`

// serve runs everything until ctx ends. Ready is called with the chat's URL.
func (c runCmd) serve(ctx context.Context, ready func(base string)) (err error) {
	level, err := zapcore.ParseLevel(c.Log)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	logs := zap.NewDevelopmentConfig()
	logs.Level, logs.DisableCaller, logs.DisableStacktrace = zap.NewAtomicLevelAt(level), true, true
	log, err := logs.Build()
	if err != nil {
		return fmt.Errorf("start the log: %w", err)
	}
	defer log.Sync()
	if c.Data == "" {
		folder, err := os.MkdirTemp("", "chat-")
		if err != nil {
			return fmt.Errorf("make a folder for the database: %w", err)
		}
		defer os.RemoveAll(folder)
		c.Data = folder
	} else if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make the database's folder: %w", err)
	}
	backend, err := freeAddress()
	if err != nil {
		return err
	}
	controls, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the button: %w", err)
	}
	// Logins end with this process, unless CHAT_SECRET outlives it.
	secret := os.Getenv("CHAT_SECRET")
	if secret == "" {
		secret = rand.Text() + rand.Text()
	}
	cfg, err := configure(map[string]string{
		"CHAT_LISTEN": c.Listen, "CHAT_ADMIN": c.Admin, "CHAT_LOG": level.String(), "CHAT_DRAIN": "1s",
		"CHAT_BACKEND": "http://" + backend, "CHAT_CONTROL": "http://" + controls.Addr().String(),
		"CHAT_SECRET": secret, "CHAT_SESSION_SECRET": rand.Text() + rand.Text(),
	})
	if err != nil {
		controls.Close()
		return err
	}
	p, err := proxy.New(cfg, proxy.Options{Log: log})
	if err != nil {
		controls.Close()
		return fmt.Errorf("start stent: %w", err)
	}
	api, err := admin.New(p, admin.Options{Log: log})
	if err != nil {
		controls.Close()
		return fmt.Errorf("start stent: %w", err)
	}
	if err := errors.Join(p.Listen(ctx), api.Listen(ctx)); err != nil {
		controls.Close()
		return fmt.Errorf("start stent: %w", err)
	}
	args := []string{"backend", "--attached", "--listen", backend, "--db", filepath.Join(c.Data, "chat.db")}
	if api.Addr() != nil {
		args = append(args, "--edge", "http://"+api.Addr().String())
	}
	process := &child{args: args, env: append(os.Environ(), "CHAT_SECRET="+secret), pause: c.Pause, log: log, kills: make(chan struct{}, 1)}
	if _, err := p.Tree().AddControl(api); err != nil {
		controls.Close()
		return fmt.Errorf("start stent: %w", err)
	}
	if _, err := p.Tree().AddControl(process); err != nil {
		controls.Close()
		return fmt.Errorf("start the backend: %w", err)
	}
	control := &http.Server{Handler: newControl(process.kill), ReadHeaderTimeout: 10 * time.Second}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer control.Close()
	parts.Go(func() { control.Serve(controls) })

	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	parts.Go(func() {
		if awaitHealth(waiting, "http://"+backend+"/healthz") {
			ready("http://" + p.Addrs()[0].String())
		}
	})
	return p.Run(ctx)
}

// awaitHealth asks until the backend is well, or ctx ends.
func awaitHealth(ctx context.Context, url string) bool {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// The ports below those that systems give to connections and to listeners
// that don't choose: while the backend is away nobody else gets its port, not
// even a connection to it, which can meet itself (RFC 9293 section 3.5).
const lowPort, highPort = 10_000, 32_000

// freeAddress is a loopback address that nobody listens on: the backend's,
// over all its lives.
func freeAddress() (address string, err error) {
	for range 20 {
		address = fmt.Sprintf("127.0.0.1:%d", lowPort+mathrand.IntN(highPort-lowPort))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("find a port for the backend: %w", err)
}
