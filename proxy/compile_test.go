package proxy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
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

// A pipeline that is not there is reported where its name stands, and not once
// more for each route.
func TestUnknownPipelineOnce(t *testing.T) {
	compile := config.WithCompile(func(cfg *config.Config) error {
		_, err := Compile(cfg, testHandlers)
		return err
	})
	_, err := config.Parse("test.yaml", []byte(`pipe_through: [nobody]
routes: [{path: /a, upstream: app}, {path: /b, upstream: app}]
upstreams: {app: {targets: ["ws://127.0.0.1:9000"]}}
`), compile)
	list, _ := errors.AsType[config.Errors](err)
	if len(list) != 1 || list[0].Path != "pipe_through[0]" {
		t.Errorf("got\n%v\nwant one error, at pipe_through[0]", err)
	}
}

// Compile goes on after a fault: a plug's hides none of a handler, nor a
// certificate's one of the next.
func TestCompileNamesAllErrors(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(`listeners:
  - address: ":4000"
    tls:
      certificates: [{cert: one.crt, key: one.key}, {cert: two.crt, key: two.key}]
      client_ca: nope.crt
pipelines: {files: [{static: {from: nope}}]}
routes:
  - {path: /a, upstream: app, pipe_through: [files], handlers: [greter]}
  - {path: /b, upstream: app, handlers: [nobody]}
upstreams:
  app: {targets: ["wss://127.0.0.1:9000"], tls: {ca: nope.crt}}
`))
	if err != nil {
		t.Fatal(err)
	}
	counts := newMetrics()
	_, err = compile(cfg, testHandlers, plug.Env{}, counts)
	if err == nil {
		t.Fatal("compiled")
	}
	located, _ := errors.AsType[config.Errors](cfg.Locate(err))
	var got []string
	for _, e := range located {
		got = append(got, e.Path)
	}
	want := []string{
		"listeners[0].tls.certificates[0]", "listeners[0].tls.certificates[1]", "listeners[0].tls.client_ca",
		"pipelines.files[0].static.from", "routes[0].handlers[0]", "routes[1].handlers[0]", "upstreams.app.tls.ca",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got errors at %q, want %q", got, want)
	}
	if len(counts.routes) > 0 {
		t.Error("routes that were refused are counted")
	}
}
