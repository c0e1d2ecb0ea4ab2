package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/cmd/chat/account"
	"github.com/stentproxy/stent/cmd/chat/api"
	"github.com/stentproxy/stent/cmd/chat/mail"
	"github.com/stentproxy/stent/cmd/chat/page"
	"github.com/stentproxy/stent/cmd/chat/room"
	"github.com/stentproxy/stent/cmd/chat/store"
)

// backendCmd is the application behind the proxy. Secrets come by the
// environment alone: a command line can be read by others.
type backendCmd struct {
	Listen   string        `default:"127.0.0.1:9000" env:"CHAT_BACKEND_LISTEN" placeholder:"ADDRESS" help:"Where it listens (by default ${default})."`
	DB       string        `default:"chat.db" env:"CHAT_DB" placeholder:"FILE" help:"The database (by default ${default})."`
	Life     time.Duration `default:"12h" env:"CHAT_TOKEN_LIFE" help:"How long a login lasts (by default ${default})."`
	Edge     string        `env:"CHAT_EDGE" placeholder:"URL" help:"The proxy's admin API, which is told of logouts."`
	MailFrom string        `default:"chat@localhost.localdomain" env:"CHAT_MAIL_FROM" placeholder:"ADDRESS" help:"Whom mail is from. Where it goes is in CHAT_SMTP: smtp://user:password@host:587, or into the mailbox at /sent_mails without."`
	Attached bool          `hidden:"" help:"End with the standard input."`
}

// Run serves until a signal.
func (c backendCmd) Run() error {
	log, err := zap.NewProduction()
	if err != nil {
		return fmt.Errorf("start the log: %w", err)
	}
	defer log.Sync()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if c.Attached {
		// The process that started this one holds the other end: when it is
		// gone, however it went, nothing of it shall be left.
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for the backend: %w", err)
	}
	return c.serve(ctx, listener, log)
}

// stopTime is how long requests under way may take when the backend stops.
const stopTime = 5 * time.Second

// serve serves on listener until ctx ends.
func (c backendCmd) serve(ctx context.Context, listener net.Listener, log *zap.Logger) error {
	defer listener.Close()
	tokens, err := account.NewTokens(os.Getenv("CHAT_SECRET"), c.Life)
	if err != nil {
		return fmt.Errorf("CHAT_SECRET: %w", err)
	}
	db, err := store.Open(ctx, c.DB)
	if err != nil {
		return err
	}
	defer db.Close()
	rooms := &room.Server{Store: db, Log: log}
	app := &api.API{
		Store: db, Tokens: tokens, Room: rooms, Log: log,
		Passwords: account.NewPasswords(max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if address := os.Getenv("CHAT_SMTP"); address != "" {
		smtp, err := mail.NewSMTP(address, c.MailFrom)
		if err != nil {
			return fmt.Errorf("CHAT_SMTP: %w", err)
		}
		app.Send = smtp.Send
	}
	if c.Edge != "" {
		app.Revoke = newEdge(c.Edge, os.Getenv("CHAT_ADMIN_TOKEN")).revoke
	}
	rooms.Authenticate = app.Authenticate

	mux := http.NewServeMux()
	rest := app.Handler()
	for _, path := range []string{"/api/", "/sent_mails", "/healthz"} {
		mux.Handle(path, rest)
	}
	mux.Handle("GET "+room.Path, rooms)
	mux.Handle("/", page.Handler())

	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer rooms.Wait()
	defer end()
	errorLog, err := zap.NewStdLogAt(log, zap.WarnLevel)
	if err != nil {
		return fmt.Errorf("start the log: %w", err)
	}
	server := &http.Server{
		Handler: mux, ErrorLog: errorLog,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return life },
	}
	var stopping sync.WaitGroup
	defer stopping.Wait()
	stopping.Go(func() {
		select {
		case <-ctx.Done():
		case <-life.Done():
		}
		end() // the sockets: 1012
		patience, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if server.Shutdown(patience) != nil {
			server.Close()
		}
	})
	log.Info("the chat's backend is up", zap.Stringer("address", listener.Addr()), zap.String("database", c.DB))
	err = server.Serve(listener)
	end()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the backend: %w", err)
}
