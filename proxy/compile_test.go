package proxy

import (
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

// Compile names what only it can find, by its place in the file.
func TestCompileErrors(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"certificate that is not there",
			"listeners:\n  - address: \":4000\"\n    tls:\n      certificates: [{cert: nope.crt, key: nope.key}]\nroutes: [{path: /*, upstream: app}]\nupstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n",
			"test.yaml:4:22: listeners[0].tls.certificates[0]: load certificate"},
		{"CA that is not there",
			"routes: [{path: /*, upstream: app}]\nupstreams:\n  app:\n    targets: [\"wss://127.0.0.1:9000\"]\n    tls: {ca: nope.crt}\n",
			"test.yaml:5:15: upstreams.app.tls.ca"},
		{"handler that nobody has registered",
			"routes:\n  - path: /*\n    upstream: app\n    handlers: [greter]\nupstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n",
			`test.yaml:4:16: routes[0].handlers[0]: no handler is called "greter"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := config.Parse("test.yaml", []byte(tc.yaml))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Compile(cfg, testHandlers)
			if err == nil {
				t.Fatal("compiled")
			}
			if got := cfg.Locate(err).Error(); !strings.Contains(got, tc.want) {
				t.Errorf("got\n%s\nwant it to contain\n%s", got, tc.want)
			}
		})
	}
}
