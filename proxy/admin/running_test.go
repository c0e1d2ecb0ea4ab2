package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/coder/websocket"
	"go.uber.org/zap/zaptest"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// patience bounds whatever a test waits for.
const patience = 10 * time.Second

// running is a proxy with its admin API.
type running struct {
	t      *testing.T
	proxy  *proxy.Proxy
	server *Server
	client *http.Client
	front  string // where WebSocket clients connect
	api    string
	stop   func() // begins the drain
}

// run starts a proxy with the YAML. Its admin API is on loopback unless the
// YAML says more of it.
func run(t *testing.T, yaml string, o Options) *running {
	t.Helper()
	if !strings.Contains(yaml, "admin:") {
		yaml = "admin: {address: \"127.0.0.1:0\"}\n" + yaml
	}
	if !strings.Contains(yaml, "shutdown:") {
		yaml = "shutdown: {drain: 1s}\n" + yaml
	}
	cfg, err := config.Parse("test.yaml", []byte("listeners: [{address: \"127.0.0.1:0\"}]\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	log := zaptest.NewLogger(t)
	p, err := proxy.New(cfg, proxy.Options{Log: log, Handlers: handlers})
	if err != nil {
		t.Fatal(err)
	}
	if o.Log == nil {
		o.Log = log
	}
	server, err := New(p, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Tree().AddControl(server); err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()

	addr := server.Addr()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	}}
	r := &running{
		t: t, proxy: p, server: server, stop: cancel,
		client: &http.Client{Transport: transport, Timeout: patience},
		front:  "ws://" + p.Addrs()[0].String(), api: "http://" + addr.String(),
	}
	if addr.Network() == "unix" {
		r.api = "http://localhost"
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.eventually("the proxy is ready", p.Ready)
	return r
}

// eventually waits until ok holds.
func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// request asks the API. Fields are header lines; Host is one of them.
func (r *running) request(method, path string, body []byte, fields ...string) reply {
	r.t.Helper()
	got := r.ask(method, path, body, fields...)
	if got.err != nil {
		r.t.Fatal(got.err)
	}
	return got
}

// ask is request for any goroutine.
func (r *running) ask(method, path string, body []byte, fields ...string) reply {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.api+path, bytes.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, got, err}
}

// get decodes the answer to GET path into v.
func (r *running) get(path string, v any) {
	r.t.Helper()
	got := r.request("GET", path, nil)
	if got.status != http.StatusOK {
		r.t.Fatalf("GET %s: got %d %s", path, got.status, got.body)
	}
	if media := got.header.Get("Content-Type"); media != "application/json" {
		r.t.Errorf("GET %s: Content-Type %q", path, media)
	}
	if err := json.Unmarshal(got.body, v); err != nil {
		r.t.Fatalf("GET %s: %v in %s", path, err, got.body)
	}
}

// wantProblem checks that the answer is a problem with the status.
func (r *running) wantProblem(got reply, status int) {
	r.t.Helper()
	var problem struct {
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id"`
	}
	if got.status != status || got.header.Get("Content-Type") != "application/problem+json" {
		r.t.Fatalf("got %d %s %q, want a problem with %d", got.status, got.header.Get("Content-Type"), got.body, status)
	}
	if err := json.Unmarshal(got.body, &problem); err != nil {
		r.t.Fatalf("%v in %s", err, got.body)
	}
	if problem.Status != status || problem.Detail == "" || problem.RequestID == "" || problem.RequestID != got.header.Get("X-Request-Id") {
		r.t.Errorf("problem %s with X-Request-Id %q", got.body, got.header.Get("X-Request-Id"))
	}
}

// dial opens a session and waits until the proxy shows it as open.
func (r *running) dial(path string, subprotocols ...string) (*websocket.Conn, *proxy.Session) {
	r.t.Helper()
	before := make(map[string]bool)
	for _, s := range r.proxy.Sessions() {
		before[s.Key()] = true
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, r.front+path, &websocket.DialOptions{Subprotocols: subprotocols})
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetReadLimit(-1)
	r.t.Cleanup(func() { c.CloseNow() })
	var opened *proxy.Session
	r.eventually("the session is open", func() bool {
		for _, s := range r.proxy.Sessions() {
			if !before[s.Key()] && s.State() == proxy.Open {
				opened = s
			}
		}
		return opened != nil
	})
	return c, opened
}

// backend is a WebSocket server that echoes. It tells what it gets, and how
// its sessions end.
type backend struct {
	url    string
	got    chan string
	closed chan websocket.StatusCode

	socket net.Listener
	mu     sync.Mutex
	conns  []*websocket.Conn
}

// leave cuts every connection and takes no more.
func (b *backend) leave() {
	b.socket.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.CloseNow()
	}
}

func newBackend(t *testing.T) *backend {
	b := &backend{got: make(chan string, 1024), closed: make(chan websocket.StatusCode, 1024)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat.v2"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		b.mu.Lock()
		b.conns = append(b.conns, c)
		b.mu.Unlock()
		for {
			typ, data, err := c.Read(r.Context())
			if err != nil {
				b.closed <- websocket.CloseStatus(err)
				return
			}
			b.got <- fmt.Sprintf("%s %s", strings.TrimPrefix(typ.String(), "Message"), data)
			if err := c.Write(r.Context(), typ, data); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	b.socket = srv.Listener
	b.url = strings.Replace(srv.URL, "http", "ws", 1)
	return b
}

// newGoingAway is a WebSocket server that sends its first client away and
// keeps the others.
func newGoingAway(t *testing.T) string {
	var first atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if first.CompareAndSwap(false, true) {
			c.Close(websocket.StatusGoingAway, "")
			return
		}
		<-c.CloseRead(r.Context()).Done()
	}))
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "http", "ws", 1)
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// read returns what a client gets next.
func read(t *testing.T, c *websocket.Conn) (websocket.MessageType, []byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return c.Read(ctx)
}

// echoed sends a message through the proxy and waits for its echo.
func echoed(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := read(t, c); err != nil || string(got) != text {
		t.Fatalf("echo of %q: got %q, %v", text, got, err)
	}
}

// handlers are what test configurations may name.
var handlers = map[string]proxy.NewHandler{
	"pass":  func(any) (func() proxy.Handler, error) { return func() proxy.Handler { return pass{} }, nil },
	"named": func(any) (func() proxy.Handler, error) { return func() proxy.Handler { return named{} }, nil },
}

type pass struct{}

func (pass) Message(*proxy.Session, proxy.Message) proxy.Result { return proxy.OK() }

// named gives its sessions the socket id that the client names in X-Test-Id,
// as an auth plug would. It reaches into the session: no plug does so yet.
type named struct{ pass }

func (named) Open(s *proxy.Session) error {
	field := reflect.ValueOf(s).Elem().FieldByName("info")
	info := *(**plug.Info)(unsafe.Pointer(field.UnsafeAddr()))
	info.ID = s.Header().Get("X-Test-Id")
	return nil
}

// oneRoute is a configuration of one route with one upstream.
func oneRoute(url, more string) string {
	return fmt.Sprintf("routes:\n  - {path: /*, upstream: app%s}\nupstreams: {app: {targets: [{url: %q, name: blue}]}}\n", more, url)
}
