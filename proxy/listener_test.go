package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thejerf/suture/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

// testLimits are those of a listener under test.
func testLimits() config.Limits {
	return config.Limits{HandshakeTimeout: config.Duration(patience), HeaderSize: 16 << 10}
}

// mustListen binds a listener on a free port.
func mustListen(t *testing.T, c config.Listener, limits config.Limits, h http.Handler) *Listener {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, append(certmagicLeaves[:len(certmagicLeaves):len(certmagicLeaves)], ignore)...)
	})
	c.Address = "127.0.0.1:0"
	l, err := Listen(t.Context(), c, limits, h, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve runs a listener until the test ends, or stop is called; what Serve
// returned can be received once.
func serve(t *testing.T, l *Listener) (stop func(), served <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result, over := make(chan error, 1), make(chan struct{})
	go func() {
		result <- l.Serve(ctx)
		close(over)
	}()
	stop = func() {
		cancel()
		<-over
	}
	t.Cleanup(stop)
	return stop, result
}

// dialed connects to a listener; the connection has a deadline.
func dialed(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// readStatus reads one answer and its body.
func readStatus(t *testing.T, r *bufio.Reader) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }

func TestListenAddressInUse(t *testing.T) {
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(hello))
	address := l.Addr().String()
	_, err := Listen(t.Context(), config.Listener{Address: address}, testLimits(), http.HandlerFunc(hello), zap.NewNop())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want one that says that %s is in use", err, address)
	}
	if key, ok := errors.AsType[*config.KeyError](err); !ok || key.Path != "address" {
		t.Errorf("error %v does not name its key", err)
	}
}

func TestListenerString(t *testing.T) {
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(hello))
	if got, want := l.String(), "listener 127.0.0.1:0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A client that sends its header a byte at a time is cut off in time.
func TestListenerSlowHeader(t *testing.T) {
	limits := testLimits()
	limits.HandshakeTimeout = config.Duration(200 * time.Millisecond)
	l := mustListen(t, config.Listener{}, limits, http.HandlerFunc(hello))
	serve(t, l)
	for name, begin := range map[string]string{"silent": "", "slow": "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "} {
		t.Run(name, func(t *testing.T) {
			c := dialed(t, l)
			io.WriteString(c, begin)
			over := make(chan struct{})
			go func() {
				defer close(over)
				io.Copy(io.Discard, c)
			}()
			drip := time.NewTicker(20 * time.Millisecond)
			defer drip.Stop()
			start := time.Now()
			for {
				select {
				case <-over:
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("cut off after %v", took)
					}
					return
				case <-drip.C:
					if begin != "" {
						io.WriteString(c, "a") // fails in the end
					}
				}
			}
		})
	}
}

// A body that never comes does not hold up an answer that does not need it.
func TestListenerSlowBody(t *testing.T) {
	table := mustTable(t, &config.Config{
		Pipelines: map[string][]config.Plug{"members": {{Name: "ip", Config: &config.IPPlug{Allow: []config.CIDR{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}}},
		Routes: []config.Route{
			{Path: "/members", PipeThrough: []string{"members"}},
			{Path: "/get", Methods: []string{"GET"}},
			{Path: "/open"},
		},
	})
	limits := testLimits()
	limits.HandshakeTimeout = config.Duration(100 * time.Millisecond)
	l := mustListen(t, config.Listener{}, limits, &Door{Table: func() *Table { return table }, Log: zap.NewNop()})
	serve(t, l)
	for _, tt := range []struct {
		line, body string
		want       int
	}{
		{"POST /none", "Content-Length: 10\r\n\r\n", 404},
		{"POST /get", "Content-Length: 10\r\n\r\nabc", 405},
		{"POST /members", "Transfer-Encoding: chunked\r\n\r\n5\r\nab", 403},
		{"GET /open", "Content-Length: 10\r\n\r\n", 200},
		{"POST /open", "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n", 200},
	} {
		t.Run(tt.line, func(t *testing.T) {
			c := dialed(t, l)
			io.WriteString(c, tt.line+" HTTP/1.1\r\nHost: a\r\n"+tt.body)
			in := bufio.NewReader(c)
			if got, _ := readStatus(t, in); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("then %v, want the end of the connection", err)
			}
		})
	}
}

func TestListenerHeaderSize(t *testing.T) {
	const size = 8 << 10
	limits := testLimits()
	limits.HeaderSize = size
	l := mustListen(t, config.Listener{}, limits, http.HandlerFunc(hello))
	serve(t, l)
	for _, tt := range []struct{ bytes, want int }{{size, 200}, {size + 1, 431}, {4 * size, 431}} {
		t.Run(fmt.Sprint(tt.bytes), func(t *testing.T) {
			request := "GET / HTTP/1.1\r\nHost: a\r\nX-Long: \r\n\r\n"
			request = strings.Replace(request, ": \r", ": "+strings.Repeat("a", tt.bytes-len(request))+"\r", 1)
			c := dialed(t, l)
			io.WriteString(c, request)
			if got, _ := readStatus(t, bufio.NewReader(c)); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

func TestListenerMalformedRequests(t *testing.T) {
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(hello))
	serve(t, l)
	const good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, tt := range []struct {
		name, send string
		want       []int
	}{
		{"pipelined", good + good, []int{200, 200}},
		{"pipelined junk", good + "\x81\x85junk\r\n\r\n", []int{200, 400}},
		{"TLS", "\x16\x03\x01\x00\x05hello\r\n\r\n", []int{400}},
		{"no host", "GET / HTTP/1.1\r\n\r\n", []int{400}},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", []int{400}},
		{"a blank in a name", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", []int{400}},
		{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", []int{400}},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", []int{501}},
		{"HTTP/3", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", []int{505}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialed(t, l)
			io.WriteString(c, tt.send)
			r := bufio.NewReader(c)
			for i, want := range tt.want {
				if got, _ := readStatus(t, r); got != want {
					t.Errorf("answer %d has status %d, want %d", i, got, want)
				}
			}
		})
	}
}

// flaky is a socket whose first Accept fails.
type flaky struct {
	net.Listener
	failed bool
}

func (f *flaky) Accept() (net.Conn, error) {
	if !f.failed {
		f.failed = true
		return nil, errors.New("no")
	}
	return f.Listener.Accept()
}

func TestListenerOutlivesARestart(t *testing.T) {
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(hello))
	l.socket = &flaky{Listener: l.socket}
	if err := l.Serve(t.Context()); err == nil || errors.Is(err, suture.ErrDoNotRestart) {
		t.Fatalf("Serve returned %v, want an error that restarts it", err)
	}
	serve(t, l)
	c := dialed(t, l)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, _ := readStatus(t, bufio.NewReader(c)); got != 200 {
		t.Errorf("status %d after the restart", got)
	}
}

func TestListenerDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/session" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "session")
			t.Cleanup(func() { conn.Close() })
			return
		}
		close(began)
		<-finish
		hello(w, r)
	}))
	_, served := serve(t, l)

	session := dialed(t, l)
	io.WriteString(session, "GET /session HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := io.ReadFull(session, make([]byte, len("session"))); err != nil {
		t.Fatal(err)
	}
	request := dialed(t, l)
	io.WriteString(request, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	drained := make(chan error, 1)
	go func() { drained <- l.Drain(context.Background()) }()
	<-l.draining
	for refused := false; !refused; {
		c, err := net.Dial("tcp", l.Addr().String())
		if refused = errors.Is(err, syscall.ECONNREFUSED); err == nil {
			c.Close() // the socket is not closed yet
		}
	}
	close(finish)
	if got, body := readStatus(t, bufio.NewReader(request)); got != 200 || body != "hello" {
		t.Errorf("the request under way got %d %q", got, body)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := <-served; !errors.Is(err, suture.ErrDoNotRestart) {
		t.Errorf("Serve returned %v", err)
	}
	if err := l.Drain(context.Background()); err != nil {
		t.Errorf("second drain: %v", err)
	}
	// The session has nothing to do with its listener any more.
	session.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := session.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session's connection: %v, want it open", err)
	}
	if err := l.Serve(t.Context()); !errors.Is(err, suture.ErrDoNotRestart) {
		t.Errorf("Serve after the drain returned %v", err)
	}
}

func TestListenerDrainGivesUp(t *testing.T) {
	began := make(chan struct{})
	l := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	}))
	stop, _ := serve(t, l)
	io.WriteString(dialed(t, l), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v, want a timeout", err)
	}
	stop() // ends the request too, or the test hangs
}

func TestDoor(t *testing.T) {
	table := mustTable(t, &config.Config{Endpoint: []config.Plug{{Name: "request_id"}}, Routes: []config.Route{{Path: "/*"}}})
	ended := make(chan struct{}, 10)
	table.Endpoints[0].Serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := plug.From(r)
		info.OnEnd(func() { ended <- struct{}{} })
		switch r.URL.Path {
		case "/panic":
			panic("secret")
		case "/half":
			fmt.Fprint(w, "half of it")
			panic("secret")
		}
		fmt.Fprint(w, info.ClientIP)
	})
	door := &Door{Table: func() *Table { return table }, Log: zap.NewNop()}
	trusting := config.Listener{TrustedProxies: []config.CIDR{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}}
	l := mustListen(t, config.Listener{}, testLimits(), door)
	serve(t, l)

	ask := func(path string) (int, string) {
		t.Helper()
		c := dialed(t, l)
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			body = fmt.Append(body, err)
		}
		<-ended
		return resp.StatusCode, string(body)
	}
	if code, body := ask("/"); code != 200 || body != "127.0.0.1" {
		t.Errorf("untrusted: got %d %q", code, body)
	}
	if err := l.Reload(trusting); err != nil {
		t.Fatal(err)
	}
	if code, body := ask("/"); code != 200 || body != "1.1.1.1" {
		t.Errorf("trusted: got %d %q", code, body)
	}
	if code, body := ask("/panic"); code != 500 || !strings.Contains(body, `"request_id"`) || strings.Contains(body, "secret") {
		t.Errorf("panic: got %d %q", code, body)
	}
	c := dialed(t, l)
	io.WriteString(c, "GET /half HTTP/1.1\r\nHost: a\r\n\r\n")
	if all, _ := io.ReadAll(c); strings.Contains(string(all), "\r\n0\r\n") {
		t.Errorf("half an answer looks whole: %q", all)
	}
	<-ended
	if code, _ := ask("/"); code != 200 {
		t.Errorf("after the panics: got %d", code)
	}
}

// A client that takes nothing does not hold what stent itself answers.
func TestDoorStalledReader(t *testing.T) {
	folder := t.TempDir()
	file, err := os.Create(filepath.Join(folder, "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 30); err != nil { // of zeros that are nowhere
		t.Fatal(err)
	}
	table := mustTable(t, &config.Config{
		Pipelines: map[string][]config.Plug{
			"files": {{Name: "static", Config: &config.StaticPlug{At: "/", From: folder}}},
			"none":  {{Name: "ip", Config: &config.IPPlug{Allow: []config.CIDR{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}}},
		},
		Routes: []config.Route{
			{Path: "/large", PipeThrough: []string{"files"}, Timeouts: config.Timeouts{Write: config.Duration(100 * time.Millisecond)}},
			{Path: "/refused", PipeThrough: []string{"none"}, Timeouts: config.Timeouts{Write: config.Duration(100 * time.Millisecond)}},
		},
	})
	l := mustListen(t, config.Listener{}, testLimits(), &Door{Table: func() *Table { return table }, Log: zap.NewNop()})
	serve(t, l)
	for _, path := range []string{"/large", "/refused"} {
		t.Run(path, func(t *testing.T) {
			c := dialed(t, l)
			for {
				_, err := io.WriteString(c, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n", 100))
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection stays open")
				}
				if err != nil {
					return
				}
			}
		})
	}
}

// Whoever takes the Info ends it.
func TestDoorLeavesSessionsAlone(t *testing.T) {
	table := mustTable(t, &config.Config{Routes: []config.Route{{Path: "/*"}}})
	taken := make(chan *plug.Info, 1)
	ended := false
	table.Endpoints[0].Serve = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		info := plug.From(r)
		info.OnEnd(func() { ended = true })
		info.Take()
		taken <- info
	})
	door := &Door{Table: func() *Table { return table }, Log: zap.NewNop()}
	door.ServeHTTP(plug.Observe(nil), requestFor("GET", "host", "/"))
	if ended {
		t.Error("ended with its request")
	}
	(<-taken).End()
	if !ended {
		t.Error("not ended by its owner")
	}
}

// certify writes a self-signed certificate for name and its key.
func certify(t *testing.T, dir, name string) config.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := config.Certificate{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	for file, block := range map[string]*pem.Block{
		pair.Cert: {Type: "CERTIFICATE", Bytes: der},
		pair.Key:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair
}

// shaken does a TLS handshake; no certificate is verified.
func shaken(t *testing.T, l *Listener, c *tls.Config) (*tls.ConnectionState, error) {
	t.Helper()
	c.InsecureSkipVerify = true
	conn := tls.Client(dialed(t, l), c)
	defer conn.Close()
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if code, body := readStatus(t, bufio.NewReader(conn)); code != 200 || body != "hello" {
		t.Errorf("over TLS: got %d %q", code, body)
	}
	state := conn.ConnectionState()
	return &state, nil
}

func TestListenerTLS(t *testing.T) {
	dir := t.TempDir()
	c := config.Listener{TLS: &config.ListenerTLS{Certificates: []config.Certificate{certify(t, dir, "one.test"), certify(t, dir, "two.test")}}}
	l := mustListen(t, c, testLimits(), http.HandlerFunc(hello))
	serve(t, l)
	for sni, want := range map[string]string{"one.test": "one.test", "two.test": "two.test", "other.test": "one.test", "": "one.test"} {
		state, err := shaken(t, l, &tls.Config{ServerName: sni, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("asked for %q, got the certificate of %s, want %s", sni, got, want)
		}
		if state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("protocol %q, want http/1.1", state.NegotiatedProtocol)
		}
	}
	if _, err := shaken(t, l, &tls.Config{MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	c.TLS.MinVersion = "1.3"
	if err := l.Reload(c); err != nil {
		t.Fatal(err)
	}
	if _, err := shaken(t, l, &tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was spoken after a reload to 1.3")
	}
	for name, bad := range map[string]config.Listener{
		"no TLS":       {},
		"no files":     {TLS: &config.ListenerTLS{Certificates: []config.Certificate{{Cert: "none", Key: "none"}}}},
		"no such TLS":  {TLS: &config.ListenerTLS{MinVersion: "1.1", Certificates: c.TLS.Certificates}},
		"certificates": {TLS: &config.ListenerTLS{}},
	} {
		if err := l.Reload(bad); err == nil {
			t.Errorf("%s: reloaded", name)
		}
	}
	if _, err := shaken(t, l, &tls.Config{ServerName: "two.test"}); err != nil {
		t.Errorf("after bad reloads: %v", err)
	}
}

func TestListenerTLSHandshakeTimeout(t *testing.T) {
	limits := testLimits()
	limits.HandshakeTimeout = config.Duration(50 * time.Millisecond)
	c := config.Listener{TLS: &config.ListenerTLS{Certificates: []config.Certificate{certify(t, t.TempDir(), "one.test")}}}
	l := mustListen(t, c, limits, http.HandlerFunc(hello))
	serve(t, l)
	if _, err := io.Copy(io.Discard, dialed(t, l)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent client was not cut off")
	}
}

func TestCertificatesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	pair := certify(t, dir, "one.test")
	certs, err := newCertificates(config.ListenerTLS{Certificates: []config.Certificate{pair}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	// later makes the next handshake look at the files.
	later := func() {
		certs.mu.Lock()
		defer certs.mu.Unlock()
		certs.looked = time.Now().Add(-2 * certificateAge)
	}
	touch := func(at time.Time) {
		for _, name := range []string{pair.Cert, pair.Key} {
			if err := os.Chtimes(name, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := certs.latest()
	later()
	if certs.latest() != first {
		t.Error("unchanged files were read again")
	}
	certify(t, dir, "one.test")
	touch(time.Now().Add(time.Minute))
	if certs.latest() != first {
		t.Error("looked at the files too soon")
	}
	later()
	second := certs.latest()
	if second == first {
		t.Error("changed files were not read")
	}
	if err := os.WriteFile(pair.Cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	later()
	if certs.latest() != second {
		t.Error("bad files were used")
	}
}
