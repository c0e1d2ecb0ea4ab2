package config

import (
	"os"
	"reflect"
	"regexp"
	"testing"
)

// all reads deploy/examples/all.yaml, with what it leaves commented out.
func all(t *testing.T) *Config {
	t.Helper()
	const path = "../deploy/examples/all.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^( *)#([^ \n])`).ReplaceAll(text, []byte("$1$2"))
	c, err := Parse(path, text, environment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAllHasEveryKey(t *testing.T) {
	c := all(t)
	// eachKey names a type by its shortest path.
	shorten := []struct {
		long  *regexp.Regexp
		short string
	}{
		{regexp.MustCompile(`\[\d+\]`), "[]"},
		{regexp.MustCompile(`^(scopes\[\]\.)+routes\[`), "routes["},
		{regexp.MustCompile(`^upstreams\.\w+`), "upstreams.*"},
		{regexp.MustCompile(`^pipelines\.\w+`), "endpoint"},
	}
	has := make(map[string]bool)
	for path := range c.source.keys {
		for _, s := range shorten {
			path = s.long.ReplaceAllString(path, s.short)
		}
		has[path] = true
	}
	eachKey(func(path string, k key) {
		if !has[path] && !k.later {
			t.Errorf("not there: %s", path)
		}
	})
	named := make(map[string]bool) // a plug may be a bare name
	for _, pipeline := range c.Pipelines {
		for _, p := range pipeline {
			named[p.Name] = true
		}
	}
	for name := range plugs {
		if !named[name] {
			t.Errorf("not there: plug %s", name)
		}
	}
}

// Where the file shows defaults they are the ones.
func TestAllShowsDefaults(t *testing.T) {
	c := all(t)
	route, app := c.Routes[0], c.Upstreams["app"]
	continuity := *route.Continuity
	continuity.Replay.First = 0
	for _, test := range []struct {
		name      string
		got, want any
	}{
		{"admin", c.Admin.Address, DefaultAdmin().Address},
		{"log", c.Log, DefaultLog()},
		{"limits", c.Limits, DefaultLimits()},
		{"shutdown", c.Shutdown, DefaultShutdown()},
		{"keepalive", route.Keepalive, DefaultKeepalive()},
		{"timeouts", route.Timeouts, DefaultTimeouts()},
		{"route limits", route.Limits, DefaultRouteLimits()},
		{"continuity", continuity, DefaultContinuity()},
		{"dial", app.Dial, DefaultDial()},
		{"rebalance", app.Rebalance, DefaultRebalance()},
		{"health", *app.Health, DefaultHealth()},
		{"outlier", *app.Outlier, DefaultOutlier()},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, test.got, test.want)
		}
	}
}
