package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// TestOperate asks a real process with every command that does.
func TestOperate(t *testing.T) {
	address, admin, backend := freeAddress(t), freeAddress(t), echoServer(t)
	p := startProcess(t, nil, "serve", "--to", "ws://"+backend, "--listen", address, "--admin", admin)
	conn := open(t, address)
	echoed(t, conn, "hello", "hello")
	ask := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := stent(t, append(args, "--admin", admin)...)
		if code != 0 {
			t.Fatalf("stent %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
		}
		return stdout
	}

	ask("health")
	ask("health", "--ready")
	var list struct {
		Sessions []struct{ Session, State string }
	}
	if err := json.Unmarshal([]byte(ask("sessions", "--json")), &list); err != nil || len(list.Sessions) != 1 {
		t.Fatalf("sessions: got %+v, %v, want one", list, err)
	}
	key := list.Sessions[0].Session
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"sessions"}, key},
		{[]string{"sessions", "list", "--state", "open"}, key},
		{[]string{"sessions", "show", key}, "1 / 5 B"},
		{[]string{"sessions", "send", key, "from the operator"}, "written"},
		{[]string{"upstreams"}, backend},
		{[]string{"upstreams", "drain", "target", backend}, ""},
		{[]string{"upstreams"}, "draining"},
		{[]string{"upstreams", "undrain", "target", backend}, ""},
		{[]string{"upstreams"}, "up"},
		{[]string{"tree"}, "partition"},
		{[]string{"sessions", "close", key, "--code", "4001", "--reason", "enough"}, ""},
	} {
		if got := ask(tt.args...); !strings.Contains(got, tt.want) {
			t.Errorf("stent %s: want %q in\n%s", strings.Join(tt.args, " "), tt.want, got)
		}
	}

	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	v, _ := build()
	if want := fmt.Sprintf("version=%q} 1", v); err != nil || !strings.Contains(string(metrics), want) {
		t.Errorf("metrics: %v, want %s of stent_build_info in\n%s", err, want, metrics)
	}

	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != "from the operator" {
		t.Errorf("what was sent: got %q, %v", got, err)
	}
	_, _, err = conn.Read(t.Context())
	if got := websocket.CloseStatus(err); got != 4001 {
		t.Errorf("what was closed: got %v, want 4001", err)
	}
	if code, _, stderr := stent(t, "sessions", "show", "NOBODY", "--admin", admin); code != exitFailed || !strings.Contains(stderr, "404") {
		t.Errorf("a session that is not there: got %d %q", code, stderr)
	}
	p.Process.Signal(syscall.SIGTERM)
	p.exits(t, 0)
}
