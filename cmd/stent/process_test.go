package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestMain runs the command itself where a test has started this binary as
// stent.
func TestMain(m *testing.M) {
	if os.Getenv("STENT_TEST_PROCESS") != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is stent as a process of its own.
type process struct {
	*exec.Cmd
	lines chan string // of its log; closed when it has ended
}

// startProcess starts stent with env added to a bare environment.
func startProcess(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), os.Args[0], args...), lines: make(chan string, 1000)}
	p.Env = append([]string{"STENT_TEST_PROCESS=1"}, env...)
	p.Dir = t.TempDir()
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		for range p.lines {
		}
		p.Wait()
	})
	return p
}

// logged waits for a line that holds text.
func (p *process) logged(t *testing.T, text string) {
	t.Helper()
	var before []string
	for line := range p.lines {
		if strings.Contains(line, text) {
			return
		}
		before = append(before, line)
	}
	t.Fatalf("ended without a line with %q:\n%s", text, strings.Join(before, "\n"))
}

// exits waits for the end with this exit code.
func (p *process) exits(t *testing.T, want int) {
	t.Helper()
	var rest []string
	for line := range p.lines {
		rest = append(rest, line)
	}
	p.Wait()
	if got := p.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code: got %d, want %d, after:\n%s", got, want, strings.Join(rest, "\n"))
	}
}

// echoServer is a backend that sends back what it gets.
func echoServer(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, data, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// freeAddress is one that nobody listens on just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	// Below the range from which the system takes ports for connections and
	// for listeners on port 0: other tests run at the same time.
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port in a hundred tries")
	return ""
}

// open connects a client through the proxy at address, as soon as it is there.
func open(t *testing.T, address string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, _, err := websocket.Dial(ctx, "ws://"+address+"/x", nil)
		if err == nil {
			t.Cleanup(func() { conn.CloseNow() })
			return conn
		}
		select {
		case <-ctx.Done():
			t.Fatalf("open a session: %v", err)
		case <-time.After(10 * time.Millisecond): // not there yet
		}
	}
}

// echoed sends text and wants it, or what it is to become, back.
func echoed(t *testing.T, conn *websocket.Conn, text, want string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	_, got, err := conn.Read(t.Context())
	if err != nil || string(got) != want {
		t.Fatalf("sent %q: got %q, %v, want %q", text, got, err, want)
	}
}

func TestServeByFlagsAndDrain(t *testing.T) {
	address := freeAddress(t)
	p := startProcess(t, nil, "serve", "--to", "ws://"+echoServer(t), "--listen", address, "--admin", "off")
	conn := open(t, address)
	echoed(t, conn, "hello", "hello")
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.Read(t.Context())
	if got := websocket.CloseStatus(err); got != websocket.StatusServiceRestart {
		t.Errorf("at a drain: got %v, want close 1012", err)
	}
	p.exits(t, 0)
}

func TestServeByEnvironmentAlone(t *testing.T) {
	address := freeAddress(t)
	p := startProcess(t, []string{"STENT_TO=ws://" + echoServer(t), "STENT_LISTEN=" + address, "STENT_ADMIN=off"}, "serve")
	conn := open(t, address)
	echoed(t, conn, "hello", "hello")
	conn.Close(websocket.StatusNormalClosure, "")
	p.Process.Signal(syscall.SIGINT)
	p.exits(t, 0)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	address := freeAddress(t)
	file := filepath.Join(t.TempDir(), "stent.yaml")
	writeFile(t, file, fmt.Sprintf(`
listeners: [{address: %q}]
admin: {address: "off"}
shutdown: {delay: 1h}
routes: [{path: "/*", upstream: app}]
upstreams: {app: {targets: ["ws://%s"]}}
`, address, echoServer(t)))
	p := startProcess(t, nil, "serve", "-c", file)
	echoed(t, open(t, address), "hello", "hello")
	p.Process.Signal(syscall.SIGTERM)
	p.logged(t, "stopping")
	p.Process.Signal(syscall.SIGTERM)
	p.exits(t, exitFailed)
}

func TestReload(t *testing.T) {
	address, backend := freeAddress(t), echoServer(t)
	file := filepath.Join(t.TempDir(), "stent.yaml")
	write := func(rules string) {
		writeFile(t, file, fmt.Sprintf(`
listeners: [{address: %q}]
admin: {address: "off"}
routes:
  - path: /*
    upstream: app
    handlers: [{rules: %s}]
upstreams: {app: {targets: ["ws://%s"]}}
`, address, rules, backend))
	}
	write(`[{when: 'text == "who"', reply_text: first}]`)
	p := startProcess(t, []string{"STENT_CONFIG=" + file}, "serve")
	old := open(t, address)
	echoed(t, old, "who", "first")

	write(`[{when: 'text == "who"', reply_text: second}]`)
	p.Process.Signal(syscall.SIGHUP)
	p.logged(t, "configuration reloaded")
	echoed(t, open(t, address), "who", "second")
	echoed(t, old, "who", "first")

	write(`[{when: 'txt == "who"', reply_text: third}]`)
	p.Process.Signal(syscall.SIGHUP)
	p.logged(t, "unknown name txt")
	echoed(t, open(t, address), "who", "second")
}

// TestReloadOfTheProcess changes what is not of routes: the admin token and the
// log's level at once, the rest with a warning.
func TestReloadOfTheProcess(t *testing.T) {
	address, admin, backend := freeAddress(t), freeAddress(t), echoServer(t)
	file := filepath.Join(t.TempDir(), "stent.yaml")
	write := func(token, more string) {
		writeFile(t, file, fmt.Sprintf(`
listeners: [{address: %q}]
admin: {address: %q, token: %s}
routes: [{path: "/*", upstream: app}]
upstreams: {app: {targets: ["ws://%s"]}}
%s
`, address, admin, token, backend, more))
	}
	wantCode := func(token string, want int) {
		t.Helper()
		if code, _, stderr := stent(t, "tree", "--admin", admin, "--token", token); code != want {
			t.Errorf("token %q: exit code %d, want %d: %s", token, code, want, stderr)
		}
	}
	write("one", "log: {level: warn}")
	p := startProcess(t, nil, "serve", "-c", file)
	open(t, address)
	wantCode("one", 0)

	write("two", "log: {level: info}\nsupervisor: {partitions: 3}")
	p.Process.Signal(syscall.SIGHUP)
	p.logged(t, "supervisor.partitions")
	p.logged(t, "configuration reloaded") // at info
	wantCode("one", exitFailed)
	wantCode("two", 0)
}

func TestServeSaysWhatIsMissing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		env    []string
		args   []string
		code   int
		stderr string
	}{
		{"no file at all", nil, []string{"serve"}, exitUsage, "--to ws://"},
		{"a named file that is not there", nil, []string{"serve", "-c", "none.yaml"}, exitFailed, "none.yaml"},
		{"a file and a target", nil, []string{"serve", "-c", "stent.yaml", "--to", "ws://127.0.0.1:1"}, exitUsage, "leave out"},
		{"a target that is none", []string{"STENT_TO=gopher://x"}, []string{"serve"}, exitUsage, "gopher"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProcess(t, tt.env, tt.args...)
			p.logged(t, tt.stderr)
			p.exits(t, tt.code)
		})
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := startProcess(t, nil, "serve", "--to", "ws://127.0.0.1:1", "--listen", l.Addr().String(), "--admin", "off")
	p.logged(t, "in use")
	p.exits(t, exitFailed)
	p = startProcess(t, nil, "demo", "--listen", l.Addr().String(), "--admin", "off")
	p.logged(t, "--listen and --admin choose")
	p.exits(t, exitFailed)
}

func TestDemo(t *testing.T) {
	address := freeAddress(t)
	p := startProcess(t, nil, "demo", "--listen", address, "--admin", "off")
	p.logged(t, "listening")
	resp, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("page: got %s", resp.Status)
	}
	var conns []*websocket.Conn
	for _, tt := range []struct {
		path      string
		told      []string // before anything is said
		say, want string
	}{
		{"/echo", nil, "hello", "hello"},
		{"/room", []string{`"session":"`, `"people":1`}, `{"op":"ping","at":1.5}`, `{"at":1.5,"op":"pong"}`},
	} {
		conn, _, err := websocket.Dial(t.Context(), "ws://"+address+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		for _, want := range tt.told {
			if _, got, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(got), want) {
				t.Errorf("%s: told %s, %v, want %s in it", tt.path, got, err, want)
			}
		}
		echoed(t, conn, tt.say, tt.want)
		conns = append(conns, conn)
	}

	resp, err = http.Post("http://"+address+"/demo/backend/kill", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("kill the backend: got %s", resp.Status)
	}
	// What is said now waits for the next backend, on the same connection.
	echoed(t, conns[0], "are you there?", "are you there?")
	if _, got, err := conns[1].Read(t.Context()); err != nil || !strings.Contains(string(got), `"op":"welcome"`) {
		t.Errorf("the new backend's welcome: got %s, %v", got, err)
	}
	for _, conn := range conns {
		conn.CloseNow()
	}
	p.Process.Signal(syscall.SIGINT)
	p.exits(t, 0)
}

// TestDemoByUnixSocket asks the page's question where the admin API is on no
// port.
func TestDemoByUnixSocket(t *testing.T) {
	address := freeAddress(t)
	p := startProcess(t, nil, "demo", "--listen", address, "--admin", "unix:"+filepath.Join(t.TempDir(), "admin.sock"))
	p.logged(t, "listening")
	resp, err := http.Get("http://" + address + "/demo/session/nobody")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusNotFound || got != "application/problem+json" {
		t.Errorf("got %s, %s; want the admin API's 404", resp.Status, got)
	}
}

func TestDemoHints(t *testing.T) {
	for _, tt := range []struct {
		admin string
		want  []string // in the lines
	}{
		{"127.0.0.1:4001", []string{"stent sessions   ", "stent upstreams   ", "stent tree   ", "curl http://127.0.0.1:4001/metrics\n"}},
		{"127.0.0.1:5001", []string{"stent sessions --admin 127.0.0.1:5001 ", "stent tree --admin 127.0.0.1:5001 ", "curl http://127.0.0.1:5001/metrics\n"}},
		{"unix:/run/stent.sock", []string{"stent sessions --admin unix:/run/stent.sock ", "curl --unix-socket /run/stent.sock http://localhost/metrics\n"}},
		{"off", nil},
	} {
		got := demoProxyCmd{Admin: tt.admin}.hints()
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: want %q in\n%s", tt.admin, want, got)
			}
		}
		if tt.want == nil && got != "" {
			t.Errorf("%s: got\n%s", tt.admin, got)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
