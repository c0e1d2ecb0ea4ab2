package proxy

import (
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
)

// TestReloadUntilRestart reloads what takes effect and what does not: the
// latter is warned of at each reload, and never shown as in force.
func TestReloadUntilRestart(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := newProxy(t, "listeners: [{address: \"127.0.0.1:0\"}]", zap.New(core))
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range p.listeners {
			l.Close()
		}
	})
	for _, tt := range []struct {
		name, yaml string
		warnings   []string // their keys, or addresses
	}{
		{"nothing new", "", nil},
		{"what takes effect", "admin: {token: two, metrics_public: true}\nlog: {level: debug}\nlimits: {sessions: 7}\nshutdown: {drain: 1s}\n", nil},
		{"admin.address", `admin: {address: "127.0.0.1:1"}`, []string{"admin.address"}},
		{"no admin API", `admin: {address: "off"}`, []string{"admin.address"}},
		{"log.format", "log: {format: console}", []string{"log.format"}},
		{"limits", "limits: {handshake_timeout: 1s, header_size: 8KiB}", []string{"limits.handshake_timeout", "limits.header_size"}},
		{"supervisor.partitions", "supervisor: {partitions: 3}", []string{"supervisor.partitions"}},
		{"again", "supervisor: {partitions: 3}", []string{"supervisor.partitions"}},
		{"back", "", nil},
		{"a listener's address", `listeners: [{address: "127.0.0.1:1"}]`, []string{"127.0.0.1:1", "127.0.0.1:0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			yaml := tt.yaml
			if !strings.Contains(yaml, "listeners:") {
				yaml += "\nlisteners: [{address: \"127.0.0.1:0\"}]"
			}
			cfg := mustParse(t, yaml)
			if err := p.Reload(cfg); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, entry := range logs.TakeAll() {
				for _, field := range entry.Context {
					got = append(got, field.String)
				}
			}
			if !slices.Equal(got, tt.warnings) {
				t.Errorf("warned of %q, want %q", got, tt.warnings)
			}
			c := p.Config()
			if c.Admin.Address != "127.0.0.1:4001" || c.Log.Format != "auto" || c.Supervisor.Partitions != 0 ||
				c.Limits.HandshakeTimeout != config.DefaultLimits().HandshakeTimeout || c.Limits.HeaderSize != config.DefaultLimits().HeaderSize ||
				c.Listeners[0].Address != "127.0.0.1:0" {
				t.Errorf("in force: %+v", c)
			}
			if c.Admin.Token.Value() != cfg.Admin.Token.Value() || c.Admin.MetricsPublic != cfg.Admin.MetricsPublic ||
				c.Log.Level != cfg.Log.Level || c.Limits.Sessions != cfg.Limits.Sessions || c.Shutdown != cfg.Shutdown {
				t.Errorf("not in force: %+v", cfg)
			}
		})
	}
}

// TestReloadKeepsTheToken takes the token away from an admin API that others
// reach, in a file that is good by itself.
func TestReloadKeepsTheToken(t *testing.T) {
	p := newProxy(t, `admin: {address: ":4001", token: one}`, nil)
	for _, tt := range []struct{ name, yaml, want string }{
		{"the default", "", `test.yaml:1:1: admin.token: required: the admin API listens on ":4001" until a restart`},
		{"loopback", `admin: {address: "127.0.0.1:4001"}`, `test.yaml:2:1: admin.token: required: the admin API listens on ":4001" until a restart`},
		{"another token", `admin: {address: "127.0.0.1:4001", token: two}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := p.Config()
			err := p.Reload(mustParse(t, tt.yaml))
			if tt.want == "" {
				if err != nil || p.Config().Admin.Token.Value() != "two" {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || p.Config() != before {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// newProxy is a Proxy that does not run.
func newProxy(t *testing.T, yaml string, log *zap.Logger) *Proxy {
	t.Helper()
	p, err := New(mustParse(t, yaml), Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustParse reads a configuration without routes.
func mustParse(t *testing.T, yaml string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte("routes: []\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
