package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

const good = `
routes: [{path: /*, upstream: app}]
upstreams: {app: {targets: ["ws://127.0.0.1:9000"]}}
`

const bad = `
routes:
  - path: /*
    upsteam: app
upstreams: {app: {targets: ["ws://127.0.0.1:9000"]}}
`

const badRule = `
routes:
  - path: /*
    upstream: app
    handlers:
      - rules:
          - {when: 'jsn == nil', drop: true}
      - nobody
upstreams: {app: {targets: ["ws://127.0.0.1:9000"]}}
`

// badThroughout has faults for each step that looks at a file.
const badThroughout = `
listeners:
  - address: ":4000"
    tls: {certificates: [{cert: nope.crt, key: nope.key}]}
pipelines:
  files: [{static: {from: nope}}]
routes:
  - path: /*
    upstream: ap
    pipe_through: [files]
    timeouts: {idle: soon}
    handlers:
      - rules:
          - {when: 'jsn == nil', drop: true}
          - {when: 'true'}
upstreams: {app: {targets: ["wss://127.0.0.1:9000"], tls: {ca: nope.crt}}}
`

func TestCheckAndRoutes(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		writeFile(t, path, text)
		return path
	}
	goodFile, badFile, badRuleFile := file("good.yaml", good), file("bad.yaml", bad), file("rule.yaml", badRule)
	badThroughoutFile := file("throughout.yaml", badThroughout)
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		{"valid", []string{"check", "-c", goodFile}, 0, "good.yaml: valid", nil},
		{"typo", []string{"check", "-c", badFile}, 1, "", []string{"bad.yaml:4:5:", "upsteam: app", `did you mean "upstream"?`}},
		{"rule and handler", []string{"check", "-c", badRuleFile}, 1, "", []string{
			"rule.yaml:7:20: routes[0].handlers[0].rules[0].when: unknown name jsn at column 1 of the expression",
			`no handler is called "nobody"`, "2 problems"}},
		{"every step", []string{"check", "-c", badThroughoutFile}, 1, "", []string{
			"throughout.yaml:4:26: listeners[0].tls.certificates[0]: load certificate",
			"throughout.yaml:6:27: pipelines.files[0].static.from: ",
			`throughout.yaml:9:15: routes[0].upstream: unknown upstream "ap"; did you mean "app"?`,
			"throughout.yaml:11:22: routes[0].timeouts.idle: want a duration",
			"throughout.yaml:14:20: routes[0].handlers[0].rules[0].when: unknown name jsn",
			"throughout.yaml:15:13: routes[0].handlers[0].rules[1]: a rule needs a result",
			"throughout.yaml:16:64: upstreams.app.tls.ca: read CA",
			"throughout.yaml: 7 problems"}},
		{"unreadable", []string{"check", "-c", filepath.Join(folder, "none.yaml")}, 2, "", []string{"none.yaml"}},
		{"a folder", []string{"check", "-c", folder}, 2, "", []string{"directory"}},
		{"routes", []string{"routes", "-c", goodFile}, 0, "relay", nil},
		{"routes of a bad file", []string{"routes", "-c", badFile}, 1, "", []string{"bad.yaml:4:5:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := stent(t, tt.args...)
			if code != tt.code {
				t.Errorf("exit code: got %d, want %d", code, tt.code)
			}
			if !strings.Contains(stdout, tt.stdout) || tt.stdout == "" && stdout != "" {
				t.Errorf("stdout: got %q, want %q", stdout, tt.stdout)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("want %q in\n%s", want, stderr)
				}
			}
		})
	}
}

// What is compiled in spite of a problem says nothing that only follows from
// it: the files, each with a fault of its own, have no others but these.
func TestCheckWithoutFollowUps(t *testing.T) {
	folder := filepath.Join("..", "..", "config", "testdata", "bad")
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", folder, err)
	}
	var got []string
	for _, file := range files {
		_, err := config.Load(file)
		before, _ := errors.AsType[config.Errors](err)
		known := make(map[string]bool)
		for _, e := range before {
			known[e.Error()] = true
		}
		_, _, err = compile(file)
		all, _ := errors.AsType[config.Errors](err)
		for _, e := range all {
			if !known[e.Error()] {
				got = append(got, filepath.Base(file)+" "+e.Path)
			}
		}
	}
	want := []string{
		"compression.yaml routes[0].handlers[0]",             // is registered nowhere
		"listener_tls.yaml listeners[2].tls.certificates[0]", // does not exist
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
