package config

import "testing"

func TestSmallestFile(t *testing.T) {
	c, err := Parse("stent.yaml", []byte(`routes:
  - path: /*
    upstream: app
upstreams:
  app:
    targets: [ws://127.0.0.1:9000]
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Upstreams["app"].Targets[0].Name, "127.0.0.1:9000"; got != want {
		t.Errorf("target name: got %q, want %q", got, want)
	}
	if got, want := c.Listeners[0].Address, ":4000"; got != want {
		t.Errorf("listener: got %q, want %q", got, want)
	}
	if got, want := c.Routes[0].KeyPath, "routes[0]"; got != want {
		t.Errorf("key path: got %q, want %q", got, want)
	}
}
