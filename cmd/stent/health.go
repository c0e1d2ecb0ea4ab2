package main

import (
	"context"
	"fmt"
)

type healthCmd struct {
	Admin string `env:"STENT_ADMIN" default:"http://127.0.0.1:4001" placeholder:"URL" help:"Admin API of the proxy, also host:port or unix:/path (by default ${default})."`
	Ready bool   `help:"Ask whether it takes new sessions, not only whether it is alive."`
}

// Run exits with 1 when the proxy is not alive, or not ready.
func (h healthCmd) Run(s streams) error {
	c, err := adminFlags{Admin: h.Admin}.client()
	if err != nil {
		return err
	}
	path, word := "/healthz", "alive"
	if h.Ready {
		path, word = "/readyz", "ready"
	}
	if _, err := c.do(context.Background(), request{path: path}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, word)
	return err
}
