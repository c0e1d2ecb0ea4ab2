package demo

import (
	_ "embed" // for the configuration

	"github.com/stentproxy/stent/config"
)

//go:embed demo.yaml
var source []byte

// Addresses are where the parts of the demo listen, as host:port.
type Addresses struct {
	Listen, Admin, Backend, Control string
}

// Config returns the demo's configuration for those addresses.
func Config(a Addresses) (*config.Config, error) {
	values := map[string]string{
		"DEMO_LISTEN":  a.Listen,
		"DEMO_ADMIN":   a.Admin,
		"DEMO_BACKEND": a.Backend,
		"DEMO_CONTROL": a.Control,
	}
	return config.Parse("demo.yaml", source, config.WithEnvironment(func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}))
}
