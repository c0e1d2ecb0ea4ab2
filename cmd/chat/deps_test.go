package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestProxyHasNoDatabase holds what stent's binary may embed of the chat to
// what needs no database.
func TestProxyHasNoDatabase(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command here")
	}
	out, err := exec.Command(tool, "list", "-deps", "../stent", "./room").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for name := range strings.SplitSeq(string(out), "\n") {
		for _, part := range []string{"sqlite", "goose", "go-mail"} {
			if strings.Contains(name, part) {
				t.Errorf("the proxy's binary holds %s", name)
			}
		}
	}
}
