package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/admin"
)

// errAborted is the end by a second signal.
var errAborted = errors.New("a second signal: sessions were cut off")

// serve runs the proxy until a signal: the first SIGTERM or SIGINT drains
// it, the second ends it at once; SIGHUP replaces the configuration by what
// source returns, unless that is bad. Listening is called when all addresses
// are bound.
func serve(cfg *config.Config, source func() (*config.Config, error), log *logger, listening func()) error {
	v, _ := build()
	p, err := proxy.New(cfg, proxy.Options{Log: log.Logger, Handlers: handlers, Version: v})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	replace := func() error { return reload(p, source, log) }
	api, err := admin.New(p, admin.Options{
		Log:    log.Logger,
		Reload: func(context.Context) error { return replace() },
	})
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if _, err := p.Tree().AddControl(api); err != nil {
		return fmt.Errorf("start: %w", err)
	}

	// Before anything is bound, so that no signal of an impatient parent is lost.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	if err := p.Listen(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := api.Listen(ctx); err != nil {
		return fmt.Errorf("start: %w", cfg.Locate(err))
	}
	log.Info("listening", zap.Stringers("addresses", p.Addrs()), zap.String("admin", cfg.Admin.Address), zap.String("version", v))
	listening()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for {
		select {
		case err := <-done:
			log.Info("stopped")
			return err
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				_ = replace() // has logged it
			case ctx.Err() == nil:
				log.Info("stopping", zap.Stringer("signal", s))
				drain()
			default:
				// At once: what still runs ends with the process.
				return errAborted
			}
		}
	}
}

// reload swaps the configuration, or logs why not.
func reload(p *proxy.Proxy, source func() (*config.Config, error), log *logger) error {
	var cfg *config.Config
	err := p.ReloadFrom(func() (read *config.Config, err error) {
		cfg, err = source()
		return cfg, err
	})
	if err == nil {
		err = log.setLevel(cfg.Log)
	}
	if err != nil {
		log.Error("the configuration stays as it was", zap.Error(err))
		return err
	}
	log.Info("configuration reloaded")
	return nil
}
