package main

import (
	"path/filepath"
	"strings"
	"testing"
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

func TestCheckAndRoutes(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		writeFile(t, path, text)
		return path
	}
	goodFile, badFile, badRuleFile := file("good.yaml", good), file("bad.yaml", bad), file("rule.yaml", badRule)
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
