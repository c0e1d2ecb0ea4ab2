package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/frame"
)

// A fate is how one session of many ends. The upstream learns its part of it
// from the request.
type fate struct {
	name   string
	path   string
	panics string // where the worker panics once: serve, dial or nowhere
	// client plays the client's end of an answered session; nil reads to
	// the end.
	client func(*wire)
	// status is what the client is answered.
	status int
}

var faultNames = [...]string{faultServe: "serve", faultDial: "dial", faultAttach: "attach", faultAttached: "attached", faultRun: "run"}

// fates are all that happens to sessions in the crowd. Upstreams that are
// lost are lost once: those of a session that comes back are echoes.
var fates = []fate{
	{name: "echo", path: "/relay", client: converse},
	{name: "echo", path: "/kept", client: converse},
	{name: "echo", path: "/message", client: converse},
	{name: "echo", path: "/deflate", client: converse},
	{name: "echo", path: "/alone", client: converse},
	{name: "echo", path: "/relay", client: func(w *wire) { w.send(text("a")); w.next(); w.reset() }},
	{name: "echo", path: "/message", client: func(w *wire) { w.send(text("a")); w.next(); w.reset() }},
	{name: "echo", path: "/kept", client: func(w *wire) { w.send(w.part(binary(5000), 3000)); w.reset() }},
	{name: "echo", path: "/relay", client: func(w *wire) { w.send(w.part(binary(5000), 3000)); w.Close() }},
	{name: "echo", path: "/relay", client: func(w *wire) {}}, // leaves at once
	{name: "echo", path: "/relay", client: func(w *wire) { w.send(raw(0x83, 0x80, 1, 2, 3, 4)); w.rest() }},
	{name: "echo", path: "/message", client: func(w *wire) { w.send(text("bad \xff")); w.rest() }},
	{name: "echo", path: "/small", client: func(w *wire) { w.send(binary(2000)); w.rest() }},
	{name: "echo", path: "/message", client: func(w *wire) { w.send(text("panic")); w.rest() }},
	{name: "echo", path: "/message", client: func(w *wire) { w.send(text("stop")); w.rest() }},
	{name: "echo", path: "/relay", panics: "serve", client: converse},
	{name: "echo", path: "/relay", panics: "dial", client: converse},
	{name: "kill", path: "/kept", panics: "dial", client: comeBack},
	{name: "kill", path: "/relay"},
	{name: "kill", path: "/message"},
	{name: "kill", path: "/kept", client: comeBack},
	{name: "half a frame", path: "/relay"},
	{name: "half a frame", path: "/message"},
	{name: "half a frame", path: "/kept", client: comeBack},
	{name: "half a large frame", path: "/relay"},
	{name: "half a large frame", path: "/kept"},
	{name: "broken", path: "/relay"},
	{name: "broken", path: "/kept", client: comeBack},
	{name: "close", path: "/relay"},
	{name: "close", path: "/kept", client: comeBack},
	{name: "refuse", path: "/relay", status: 403},
	{name: "refuse", path: "/kept", status: 403},
	{name: "nonsense", path: "/relay", status: 502},
	{name: "hang up", path: "/message", status: 502},
	{name: "echo", path: "/refused", status: 418},
	{name: "echo", path: "/nowhere", status: 404},
}

// converse says something, hears it back and closes.
func converse(w *wire) {
	for _, size := range []int{100, 900, 5000} {
		w.send(binary(size))
		w.await(fmt.Sprintf("binary %dB", size))
	}
	w.send(closing(1000, "bye"))
	w.rest()
}

// comeBack waits for the next upstream before it talks: what the lost one
// had may be lost with it.
func comeBack(w *wire) {
	w.await("text welcome back")
	converse(w)
}

// await reads to an event.
func (w *wire) await(want string) {
	for event := ""; event != want; {
		if event = w.next(); w.ended != "" {
			w.t.Errorf("got %q, want %q", event, want)
			return
		}
	}
}

// crowd is a proxy with many clients before it and a target behind it.
type crowd struct {
	t      *testing.T
	proxy  *Proxy
	target net.Listener
	serves sync.WaitGroup
}

func newCrowd(t *testing.T) *crowd {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, target: target}
	c.serves.Go(c.accept)
	t.Cleanup(func() { target.Close(); c.serves.Wait() })
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 1s}
endpoint: [request_id]
pipelines: {limited: [{limit: {sessions: 1000000, by: ip}}]}
pipe_through: [limited]
limits: {sessions: 1000000, sessions_per_ip: 1000000}
routes:
  - {path: /relay, upstream: app}
  - {path: /kept, upstream: app, continuity: {backoff: {min: 1ms, max: 5ms}, whole: 1KiB}}
  - {path: /message, upstream: app, handlers: [own]}
  - {path: /deflate, upstream: app, compression: terminate}
  - {path: /small, upstream: app, limits: {message_size: 1KiB}}
  - {path: /alone, upstream: none, handlers: [echo]}
  - {path: /refused, upstream: app, handlers: [refuse]}
upstreams: {app: {targets: ["ws://%s"], dial: {attempts: 1}}}
`, target.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	handlers := only(stopper)
	handlers["echo"] = func(any) (func() Handler, error) {
		return func() Handler {
			return handle(func(_ *Session, m Message) Result { return ReplyBinary(m.Data) })
		}, nil
	}
	handlers["refuse"] = func(any) (func() Handler, error) {
		return func() Handler { return opener{err: &Refusal{Status: 418}} }, nil
	}
	if c.proxy, err = New(cfg, Options{Handlers: handlers}); err != nil {
		t.Fatal(err)
	}
	var panicked sync.Map // a session panics once
	c.proxy.fault = func(s *Session, at faultPoint) {
		if s.Header().Get("X-Panic") == faultNames[at] {
			if _, again := panicked.LoadOrStore(s.Key(), nil); !again {
				panic("a test's own fault")
			}
			panicked.Delete(s.Key())
		}
	}
	if err := c.proxy.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.proxy.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

// accept serves the target until it is closed.
func (c *crowd) accept() {
	for {
		conn, err := c.target.Accept()
		if err != nil {
			return
		}
		c.serves.Go(func() { c.serve(newWire(c.t, conn, false)) })
	}
}

// serve plays the target's part of a session.
func (c *crowd) serve(w *wire) {
	defer w.Close()
	w.SetReadDeadline(time.Now().Add(patience))
	var err error
	if w.request, err = http.ReadRequest(w.in); err != nil {
		return // the client has left
	}
	fate := w.request.Header.Get("X-Fate")
	again := w.request.Header.Get("Stent-Attempt") != "1"
	if again {
		fate = "echo"
	}
	switch fate {
	case "refuse":
		io.WriteString(w, "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno\n")
		w.next()
		return
	case "nonsense":
		io.WriteString(w, "220 mail.test ESMTP\r\n")
		w.next()
		return
	case "hang up":
		return
	}
	header := []string(nil)
	if w.request.Header.Get("Sec-WebSocket-Extensions") != "" {
		header = []string{"Sec-WebSocket-Extensions: " + noContext}
	}
	io.WriteString(w, w.switching(header...))
	if again {
		w.reply(text("welcome back"))
	}
	switch fate {
	case "kill":
		w.reset()
		return
	case "half a frame":
		w.reply(w.part(text("abcdef"), 4))
		return
	case "half a large frame":
		w.reply(w.part(binary(5000), 3000))
		return
	case "broken":
		w.reply(text("good"))
		w.reply(w.misfit(text("bad")))
	case "close":
		w.reply(closing(1001, "moving"))
	}
	for w.ended == "" {
		event, h := w.read()
		if !h.Opcode.Control() && w.ended == "" {
			w.reply(sent{h: frame.Header{Fin: h.Fin, Opcode: h.Opcode}, payload: make([]byte, h.Length)})
		}
		if strings.HasPrefix(event, "close") {
			w.halfClose()
		}
	}
}

// visit lives one session.
func (c *crowd) visit(f fate) {
	conn, err := net.Dial("tcp", c.proxy.Addrs()[0].String())
	if err != nil {
		c.t.Errorf("dial: %v", err)
		return
	}
	w := newWire(c.t, conn, true)
	defer w.Close()
	header := []string{"X-Fate: " + f.name, "X-Panic: " + f.panics}
	if f.path == "/deflate" {
		header = append(header, "Sec-WebSocket-Extensions: permessage-deflate")
	}
	if _, err := io.WriteString(w, handshake(f.path, header...)); err != nil {
		c.t.Errorf("%s: %v", f.path, err)
		return
	}
	w.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		c.t.Errorf("%s %s: %v", f.name, f.path, err)
		return
	}
	status := f.status
	if status == 0 {
		status = http.StatusSwitchingProtocols
	}
	switch {
	case resp.StatusCode != status:
		c.t.Errorf("%s %s: answered %s, want %d", f.name, f.path, resp.Status, status)
	case f.status != 0:
		io.Copy(io.Discard, resp.Body)
	case f.client != nil:
		f.client(w)
	default:
		w.rest()
	}
}

// live sends n clients through the proxy, some at a time, and waits until
// all sessions are over.
func (c *crowd) live(n int) {
	c.t.Helper()
	turn := make(chan fate)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for f := range turn {
				c.visit(f)
			}
		})
	}
	for i := range n {
		turn <- fates[i%len(fates)]
		if i%50 == 0 {
			all.Go(c.leaveEarly)
		}
	}
	close(turn)
	all.Wait()
	select {
	case <-c.proxy.registry.emptied():
	case <-time.After(patience):
		c.t.Fatalf("%d sessions are left", c.proxy.registry.len())
	}
}

// leaveEarly is a client that goes at some point of its handshake.
func (c *crowd) leaveEarly() {
	conn, err := net.Dial("tcp", c.proxy.Addrs()[0].String())
	if err != nil {
		c.t.Errorf("dial: %v", err)
		return
	}
	w := newWire(c.t, conn, true)
	request := handshake("/relay")
	io.WriteString(w, request[:rand.IntN(len(request)+1)])
	if rand.IntN(2) == 0 {
		w.reset()
	}
	w.Close()
}

// remains is what a process holds.
type remains struct {
	goroutines, files int
	heap              uint64
}

func remain(t *testing.T) remains {
	t.Helper()
	for range 3 { // pools survive the first one
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors can't be counted here: %v", err)
	}
	return remains{runtime.NumGoroutine(), len(files), m.HeapAlloc}
}

// Nothing is left of sessions that have come and gone, however they went.
func TestNothingIsLeft(t *testing.T) {
	n := 10_000
	if testing.Short() || raceDetector {
		n = 2_000
	}
	c := newCrowd(t)
	c.live(10 * len(fates)) // pools, metrics and tables are there now
	before := remain(t)
	c.live(n)

	// What the kernel and net/http still close is closed in a moment.
	const slack = 1 << 20 // of heap: a hundred bytes a session
	var after remains
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		after = remain(t)
		if after.goroutines <= before.goroutines && after.files <= before.files && after.heap <= before.heap+slack ||
			time.Now().After(deadline) {
			break
		}
	}
	t.Logf("before %+v, after %+v", before, after)
	if after.goroutines > before.goroutines {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, were %d\n%s", after.goroutines, before.goroutines, buf[:runtime.Stack(buf, true)])
	}
	if after.files > before.files {
		t.Errorf("%d descriptors, were %d", after.files, before.files)
	}
	if after.heap > before.heap+slack {
		t.Errorf("%d bytes of heap, were %d", after.heap, before.heap)
	}
	s := &stage{t: t, proxy: c.proxy}
	s.checkBooks(t)
}
