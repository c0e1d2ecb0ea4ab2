package main

import (
	"bytes"
	"strings"
	"testing"
)

// stent runs one command in this process.
func stent(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, streams{out: &out, err: &err})
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		stderr string
	}{
		{"no command", nil, "expected one of"},
		{"unknown command", []string{"sevre"}, "sevre"},
		{"unknown flag", []string{"version", "--verbose"}, "--verbose"},
		{"bad admin address", []string{"tree", "--admin", "ftp://x"}, "host:port"},
		{"admin off", []string{"health", "--admin", "off"}, "off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := stent(t, tt.args...)
			if code != exitUsage {
				t.Errorf("exit code: got %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr, tt.stderr) {
				t.Errorf("got %q, want it to name %q", stderr, tt.stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := stent(t, "version")
	if code != 0 || stderr != "" {
		t.Fatalf("got %d, %q", code, stderr)
	}
	if !strings.HasPrefix(stdout, "stent ") || !strings.Contains(stdout, "commit ") || !strings.Contains(stdout, "go1.") {
		t.Errorf("got %q", stdout)
	}
}
