package main

import (
	_ "embed" // for the configuration

	"github.com/stentproxy/stent/config"
)

//go:embed chat.yaml
var source []byte

// configure returns the proxy's configuration with those values.
func configure(values map[string]string) (*config.Config, error) {
	return config.Parse("chat.yaml", source, config.WithEnvironment(func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}))
}
