package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stentproxy/stent/config"
)

// defaultConfig is what is read where nothing else is said.
const defaultConfig = "stent.yaml"

// configFlag names the configuration file.
type configFlag struct {
	Config string `short:"c" env:"STENT_CONFIG" placeholder:"FILE" help:"Configuration file (by default stent.yaml)."`
}

// path is the file to read.
func (f configFlag) path() string {
	if f.Config == "" {
		return defaultConfig
	}
	return f.Config
}

type serveCmd struct {
	configFlag
	To     string `env:"STENT_TO" placeholder:"URL" help:"Proxy everything to this target, without a file."`
	Listen string `env:"STENT_LISTEN" placeholder:"ADDRESS" help:"Where clients connect (by default the file's listener, :4000 without one)."`
	Admin  string `env:"STENT_ADMIN" placeholder:"ADDRESS" help:"Where the admin API listens, or off (by default the file's, 127.0.0.1:4001 without one)."`
}

// Run serves until a signal.
func (c serveCmd) Run(s streams) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	log, err := newLogger(cfg.Log, s.err)
	if err != nil {
		return err
	}
	defer log.Sync()
	return serve(cfg, c.load, log, func() {})
}

// load returns the configuration that the flags describe, each time anew.
func (c serveCmd) load() (*config.Config, error) {
	admin := strings.TrimPrefix(c.Admin, "http://") // as the other commands may have it
	if c.To != "" {
		if c.Config != "" {
			return nil, usage("--to needs no configuration file: leave out %s or --to", c.Config)
		}
		cfg, err := config.ForTarget(c.To, c.Listen, admin)
		if err != nil {
			return nil, &exitError{code: exitUsage, err: err}
		}
		return cfg, nil
	}
	cfg, err := config.Load(c.path())
	if err != nil {
		return nil, c.explain(err)
	}
	if c.Listen == "" && admin == "" {
		return cfg, nil
	}
	if c.Listen != "" {
		if len(cfg.Listeners) != 1 {
			return nil, usage("--listen replaces the address of one listener, but %s has %d", c.path(), len(cfg.Listeners))
		}
		cfg.Listeners[0].Address = c.Listen
	}
	if admin != "" {
		cfg.Admin.Address = admin
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// explain tells a newcomer, who has no file yet, what to do.
func (c serveCmd) explain(err error) error {
	if problems := (config.Errors)(nil); errors.As(err, &problems) {
		return fmt.Errorf("the configuration is not valid:\n%w", err)
	}
	if c.Config == "" {
		return usage("nothing to serve: %w; --to ws://host:port needs no file", err)
	}
	return err
}
