package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/golang"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

// server is a running backend.
type server struct {
	name    string
	address string // host:port
	lacks   []string
	reports *play.Reports
	child   *child // nil where it runs in the test's own process
}

// serverKind says how to run one server library.
type serverKind struct {
	name  string
	lacks []string
	run   func(t testing.TB, reports *play.Reports) (address string, c *child)
}

func (k serverKind) start(t testing.TB) *server {
	t.Helper()
	s := &server{name: k.name, lacks: k.lacks, reports: new(play.Reports)}
	s.address, s.child = k.run(t, s.reports)
	return s
}

func serverKinds() []serverKind {
	kinds := []serverKind{
		{name: "node-ws", run: childServer(node, "server.mjs", "ws")},
		{name: "node-faye", run: childServer(node, "server.mjs", "faye"), lacks: []string{play.Fragments, play.Deflate, play.NoCode, play.Codes}},
		{name: "node-websocket", run: childServer(node, "server.mjs", "websocket"), lacks: []string{play.Fragments, play.Deflate, play.NoCode}},
		{name: "py-websockets", run: childServer(pythonScript, "server.py", "websockets")},
		{name: "py-aiohttp", run: childServer(pythonScript, "server.py", "aiohttp"), lacks: []string{play.Fragments, play.NoCode}},
	}
	lacks := map[string][]string{
		"coder":   {play.Ping},
		"nhooyr":  {play.Ping},
		"gobwas":  {play.Deflate},
		"gorilla": {play.Fragments},
		"gws":     {play.Fragments, play.NoCode},
	}
	for _, name := range slices.Sorted(maps.Keys(golang.Servers)) {
		kinds = append(kinds, serverKind{name: "go-" + name, run: goServer(name), lacks: lacks[name]})
	}
	return kinds
}

func serverKindNamed(t testing.TB, name string) serverKind {
	t.Helper()
	for _, k := range serverKinds() {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("no server %s", name)
	return serverKind{}
}

type command func(t testing.TB, script string, args ...string) *exec.Cmd

func childServer(command command, script string, args ...string) func(testing.TB, *play.Reports) (string, *child) {
	return func(t testing.TB, reports *play.Reports) (string, *child) {
		t.Helper()
		port := make(chan int, 1)
		c := start(t, command(t, script, args...), serverLines(reports, port))
		select {
		case p := <-port:
			return fmt.Sprintf("127.0.0.1:%d", p), c
		case <-c.done:
			t.Fatalf("%s %v ended at once", script, args)
		case <-time.After(20 * time.Second):
			t.Fatalf("%s %v never said its port", script, args)
		}
		return "", nil
	}
}

func goServer(name string) func(testing.TB, *play.Reports) (string, *child) {
	return func(t testing.TB, reports *play.Reports) (string, *child) {
		t.Helper()
		return serveHTTP(t, golang.Servers[name](reports)), nil
	}
}

// serveHTTP serves h on a free port for as long as the test runs.
func serveHTTP(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return l.Addr().String()
}
