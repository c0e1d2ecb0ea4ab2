package proxy

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/upstream"
)

// forwarding is a listener whose one route proxies plain requests.
type forwarding struct {
	*Listener
	forward *forward
	// released counts the requests that are over: those that failed, and those
	// whose answers were closed.
	released chan struct{}
}

// mustForward proxies to base, through send where it is given.
func mustForward(t *testing.T, route config.Route, base string, send sendUp) *forwarding {
	t.Helper()
	f := &forwarding{released: make(chan struct{}, 100)}
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	via := &http.Transport{DisableCompression: true}
	if send == nil {
		send = func(_ *http.Request, _ string, at func(*url.URL) (*http.Request, error)) (*http.Response, error) {
			over := sync.OnceFunc(func() { f.released <- struct{}{} })
			answer, err := sendTo(target, via, at)
			if err != nil {
				over()
				return nil, err
			}
			answer.Body = &watchedClose{answer.Body, over}
			return answer, nil
		}
	}
	table := mustTable(t, &config.Config{
		Endpoint: []config.Plug{{Name: "request_id"}, {Name: "headers", Config: &config.HeadersPlug{
			Response: config.HeaderChange{Set: map[string]string{"X-Edited": "yes"}, Remove: []string{"X-Powered-By"}},
		}}},
		Routes: []config.Route{route},
	})
	f.forward = newForward(table.Endpoints[0], send, zap.NewNop())
	table.Endpoints[0].Serve = f.forward
	f.Listener = mustListen(t, config.Listener{}, testLimits(), &Door{Table: func() *Table { return table }, Log: zap.NewNop()})
	t.Cleanup(via.CloseIdleConnections)
	serve(t, f.Listener)
	return f
}

// sendTo sends one request to one target.
func sendTo(base *url.URL, via http.RoundTripper, at func(*url.URL) (*http.Request, error)) (*http.Response, error) {
	r, err := at(base)
	if err != nil {
		return nil, err
	}
	return via.RoundTrip(r)
}

// watchedClose says when it is closed.
type watchedClose struct {
	io.ReadCloser
	closed func()
}

func (c *watchedClose) Close() error {
	defer c.closed()
	return c.ReadCloser.Close()
}

// backend serves h until the test ends.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// client is one that leaves nothing behind.
func client(t *testing.T) *http.Client {
	via := &http.Transport{DisableCompression: true}
	t.Cleanup(via.CloseIdleConnections)
	return &http.Client{Transport: via, Timeout: patience}
}

// What goes up is what the client sent, byte for byte.
func TestForwardTarget(t *testing.T) {
	var seen string
	base := backend(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Host + " " + r.RequestURI })
	name := strings.TrimPrefix(base, "http://")
	plain := config.Route{Path: "/*"}
	for _, tt := range []struct {
		name  string
		route config.Route
		base  string
		send  string
		want  string
	}{
		{"plain", plain, "", "/a/b?c=d", "asked.test /a/b?c=d"},
		{"semicolons", plain, "", "/a;b?c=d;e=f&g;h", "asked.test /a;b?c=d;e=f&g;h"},
		{"broken query", plain, "", "/a?%zz=%&&=;", "asked.test /a?%zz=%&&=;"},
		{"empty query", plain, "", "/a?", "asked.test /a?"},
		{"two question marks", plain, "", "/a??b?", "asked.test /a??b?"},
		{"encoded", plain, "", "/a%2Fb%2fc%20%7e%41", "asked.test /a%2Fb%2fc%20%7e%41"},
		{"not encoded", plain, "", "/caf\xc3\xa9/\xff\"<>{}|^`?\xff\"'", "asked.test /caf\xc3\xa9/\xff\"<>{}|^`?\xff\"'"},
		{"slashes", plain, "", "//a///b//", "asked.test //a///b//"},
		{"slashes and semicolons", plain, "", "//a;b?c;d", "asked.test //a;b?c;d"},
		{"root", plain, "", "/", "asked.test /"},
		{"colon", plain, "", "/a:b", "asked.test /a:b"},
		{"absolute", plain, "", "http://other.test/a;b?c;d", "other.test /a;b?c;d"},
		{"a URL in the query", plain, "", "/a?u=http://b/%2e%2e", "asked.test /a?u=http://b/%2e%2e"},
		{"behind a base", plain, "/ba%2fse", "/a?b;c", "asked.test /ba%2fse/a?b;c"},
		{"behind a base with a slash", plain, "/base/", "/a", "asked.test /base/a"},
		{"stripped", config.Route{Path: "/live/socket/*", StripPrefix: true}, "", "//live/%73ocket//a%2fb;c?d;e", "asked.test //a%2fb;c?d;e"},
		{"stripped to nothing", config.Route{Path: "/live/*", StripPrefix: true}, "", "/live?d;e", "asked.test /?d;e"},
		{"stripped behind a base", config.Route{Path: "/live/*", StripPrefix: true}, "/base", "/live", "asked.test /base"},
		{"host of the target", config.Route{Path: "/*", HostHeader: config.HostTarget}, "", "/a", name + " /a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen = ""
			f := mustForward(t, tt.route, base+tt.base, nil)
			c := dialed(t, f.Listener)
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: asked.test\r\nConnection: close\r\n\r\n", tt.send)
			if got, body := readStatus(t, bufio.NewReader(c)); got != 200 {
				t.Fatalf("status %d: %s", got, body)
			}
			if seen != tt.want {
				t.Errorf("went up as %q, want %q", seen, tt.want)
			}
			<-f.released
		})
	}
	t.Run("what a URL can't hold", func(t *testing.T) {
		c := dialed(t, mustForward(t, plain, base, nil).Listener)
		io.WriteString(c, "GET //a\"b HTTP/1.1\r\nHost: asked.test\r\nConnection: close\r\n\r\n")
		if got, _ := readStatus(t, bufio.NewReader(c)); got != 400 {
			t.Errorf("status %d, want 400", got)
		}
	})
}

func TestForwardHeaders(t *testing.T) {
	var seen http.Header
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		w.Header().Set("X-Powered-By", "php")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusTeapot)
	})
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	c := dialed(t, f.Listener)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n"+
		"Connection: Upgrade, X-Gone\r\nUpgrade: h2c\r\nX-Gone: 1\r\nStent-Session: 1\r\nTE: trailers\r\nX-Kept: a;b\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "a", "X-Kept": "a;b", "Te": "trailers",
		"Forwarded": "", "Upgrade": "", "Connection": "", "X-Gone": "", "Stent-Session": "", "User-Agent": "",
	} {
		if got := strings.Join(seen[name], "|"); got != want {
			t.Errorf("%s went up as %q, want %q", name, got, want)
		}
	}
	if resp.StatusCode != http.StatusTeapot || seen.Get("X-Request-Id") == "" || resp.Header.Get("X-Request-Id") != seen.Get("X-Request-Id") {
		t.Errorf("status %d, request id %q up and %q back", resp.StatusCode, seen.Get("X-Request-Id"), resp.Header.Get("X-Request-Id"))
	}
	if resp.Header.Get("X-Edited") != "yes" || resp.Header.Get("X-Powered-By") != "" || resp.Header.Get("X-Hop") != "" {
		t.Errorf("came back as %v", resp.Header)
	}
}

func TestForwardTrailersAndHints(t *testing.T) {
	var up http.Header
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		up = r.Trailer
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Down")
		io.WriteString(w, "body")
		w.Header().Set("X-Down", "down")
	})
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints && h.Get("Link") == "</a.css>" {
			hints++
		}
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+f.Addr().String()+"/", io.MultiReader(strings.NewReader("data")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Up": {"up"}, "Stent-Session": {"forged"}}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "body" {
		t.Errorf("body %q, %v", body, err)
	}
	if got := resp.Trailer.Get("X-Down"); got != "down" {
		t.Errorf("trailer came back as %q", got)
	}
	if len(up) != 1 || up.Get("X-Up") != "up" {
		t.Errorf("trailers went up as %v", up)
	}
	if hints != 1 {
		t.Errorf("%d early hints, want 1", hints)
	}
}

// Each piece of an answer is passed on when it comes.
func TestForwardStreams(t *testing.T) {
	next := make(chan struct{})
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			fmt.Fprintln(w, "tick")
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	f := mustForward(t, config.Route{Path: "/*", Timeouts: config.Timeouts{Write: config.Duration(patience)}}, base, nil)
	resp, err := client(t).Get("http://" + f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for range 3 {
		if !lines.Scan() { // hangs where it is buffered
			t.Fatal(lines.Err())
		}
		next <- struct{}{}
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("the answer ends with %q, %v", lines.Text(), lines.Err())
	}
}

func TestForwardLargeBodies(t *testing.T) {
	const size = 24 << 20
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		io.Copy(w, r.Body)
	})
	f := mustForward(t, config.Route{Path: "/*", Timeouts: config.Timeouts{Write: config.Duration(patience)}}, base, nil)
	sent, got := sha256.New(), sha256.New()
	zeros := io.LimitReader(patterned{}, size)
	// Both ways at once: the body goes up while its echo comes down.
	resp, err := client(t).Post("http://"+f.Addr().String(), "a/b", io.TeeReader(zeros, sent))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(got, resp.Body)
	if err != nil || n != size {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
	if string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Error("other bytes came back")
	}
}

// An upstream that has heard enough is passed on, and the client with it.
func TestForwardEarlyRefusal(t *testing.T) {
	base := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	c := dialed(t, f.Listener)
	written := make(chan struct{})
	go func() {
		defer close(written)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		io.CopyN(c, patterned{}, 100_000_000) // fails half-way
	}()
	if got, _ := readStatus(t, bufio.NewReader(c)); got != 413 {
		t.Errorf("status %d, want 413", got)
	}
	<-f.released
	c.Close()
	<-written
}

// A body that is overtaken by its answer still goes up, and the client is told
// that the connection ends with it.
func TestForwardOvertaken(t *testing.T) {
	const first, rest = "first ", "and the rest"
	up := make(chan string, 1)
	early := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusAccepted)
		w.(http.Flusher).Flush()
		b, _ := io.ReadAll(r.Body)
		up <- string(b)
	})
	for _, tt := range []struct {
		name, base string
		want       int
	}{
		{"by an answer", early, http.StatusAccepted},
		{"by a failure", "http://" + nowhere(t), http.StatusBadGateway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialed(t, mustForward(t, config.Route{Path: "/*"}, tt.base, nil).Listener)
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(first+rest), first)
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.want || !resp.Close {
				t.Errorf("got %s, the connection ends: %v", resp.Status, resp.Close)
			}
			io.WriteString(c, rest)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
			resp.Body.Close()
			if tt.base == early {
				if got := <-up; got != first+rest {
					t.Errorf("%q went up, want %q", got, first+rest)
				}
			}
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("the connection ends with %v", err)
			}
		})
	}
}

// nowhere returns an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// patterned is endless.
type patterned struct{}

func (patterned) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 7)
	}
	return len(p), nil
}

func TestForwardClientLeaves(t *testing.T) {
	began, left := make(chan struct{}), make(chan struct{})
	base := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(left)
	})
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	c := dialed(t, f.Listener)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	c.Close()
	<-left
	<-f.released
}

func TestForwardFailures(t *testing.T) {
	nonsense, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nonsense.Close()
	go func() {
		for {
			c, err := nonsense.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1)) // an answer before the request would be none
			io.WriteString(c, "SSH-2.0-nonsense\r\n\r\n")
			c.Close()
		}
	}()
	to := func(address string) sendUp {
		return func(_ *http.Request, _ string, at func(*url.URL) (*http.Request, error)) (*http.Response, error) {
			return sendTo(&url.URL{Scheme: "http", Host: address}, &http.Transport{DisableKeepAlives: true}, at)
		}
	}
	failing := func(err error) sendUp {
		return func(*http.Request, string, func(*url.URL) (*http.Request, error)) (*http.Response, error) {
			return nil, err
		}
	}
	for _, tt := range []struct {
		name string
		send sendUp
		want int
	}{
		{"no pool", failing(errNoPool), 503},
		{"no target", failing(fmt.Errorf("upstream app: %w", upstream.ErrNoTarget)), 503},
		{"a problem", failing(&Problem{Status: 429}), 429},
		{"refused", to(nowhere(t)), 502},
		{"nonsense", to(nonsense.Addr().String()), 502},
		{"no connection in time", failing(upstream.ErrTimeout), 504},
		{"too slow", failing(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}), 504},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustForward(t, config.Route{Path: "/*"}, "", tt.send)
			resp, err := client(t).Get("http://" + f.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.want || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("X-Edited") != "yes" {
				t.Errorf("got %d %v, want %d", resp.StatusCode, resp.Header, tt.want)
			}
			if !strings.Contains(string(body), `"request_id"`) {
				t.Errorf("body %s has no request id", body)
			}
		})
	}
}

// Answers that can't be passed on leave nothing behind.
func TestForwardStrangeAnswers(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"another protocol", "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other"},
		{"no status of HTTP", "099 Hm\r\nContent-Length: 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			left := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					left <- err
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					left <- err
					return
				}
				io.WriteString(c, "HTTP/1.1 "+tt.answer+"\r\n\r\n")
				c.SetReadDeadline(time.Now().Add(patience))
				_, err = r.ReadByte()
				left <- err
			}()
			f := mustForward(t, config.Route{Path: "/*"}, "http://"+l.Addr().String(), nil)
			if resp, err := client(t).Get("http://" + f.Addr().String()); err == nil {
				resp.Body.Close()
			}
			select {
			case <-f.released:
			case <-time.After(patience):
				t.Error("the answer was not closed")
			}
			if err := <-left; err != io.EOF {
				t.Errorf("the upstream's connection ends with %v", err)
			}
		})
	}
}

// A target that is not there costs no client its answer, whatever has been
// asked of it.
func TestForwardDeadTarget(t *testing.T) {
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s%s ", r.Host, r.URL)
		io.Copy(w, r.Body)
	})
	_, dead := address(t, "tcp")
	p, _ := launch(t, fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 200ms}
routes: [{path: /*, upstream: app, http: true, host_header: target}]
upstreams: {app: {balance: round_robin, targets: ["%s/dead", "%s/live"]}}
`, dead, base), nil)
	c := client(t)
	for range 6 {
		resp, err := c.Post("http://"+p.Addrs()[0].String()+"/a?b", "a/b", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		want := strings.TrimPrefix(base, "http://") + "/live/a?b body"
		if err != nil || resp.StatusCode != 200 || string(body) != want {
			t.Errorf("got %d %q, %v, want %q", resp.StatusCode, body, err, want)
		}
	}
}

func TestForwardStalledBody(t *testing.T) {
	base := backend(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	f.forward.bodyStall = 50 * time.Millisecond
	c := dialed(t, f.Listener)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	if got, _ := readStatus(t, bufio.NewReader(c)); got != 408 {
		t.Errorf("status %d, want 408", got)
	}
	<-f.released
}

// A body that is proxied has longer than a handshake, and so has what follows
// on its connection.
func TestForwardSlowBody(t *testing.T) {
	const handshake = 30 * time.Millisecond
	base := backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	f.limits.HandshakeTimeout = config.Duration(handshake)
	c := dialed(t, f.Listener)
	in := bufio.NewReader(c)
	for range 3 {
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
		<-time.After(3 * handshake) // longer than a handshake: this is what is tested
		io.WriteString(c, "def")
		if got, body := readStatus(t, in); got != 200 || body != "abcdef" {
			t.Fatalf("got %d %q", got, body)
		}
		<-time.After(3 * handshake)
	}
}

// The deadline of a body must not end the wait for its answer.
func TestForwardSlowAnswer(t *testing.T) {
	const stall = 30 * time.Millisecond
	base := backend(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(10 * stall): // longer than the stall: this is what is tested
			io.WriteString(w, "late")
		case <-r.Context().Done():
		}
	})
	f := mustForward(t, config.Route{Path: "/*", Timeouts: config.Timeouts{Write: config.Duration(stall)}}, base, nil)
	f.forward.bodyStall = stall
	c := client(t)
	for range 2 { // on the same connection
		resp, err := c.Post("http://"+f.Addr().String(), "a/b", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "late" {
			t.Errorf("got %q, %v", body, err)
		}
	}
}

func TestForwardStalledReader(t *testing.T) {
	left := make(chan struct{})
	base := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		defer close(left)
		io.Copy(w, patterned{})
	})
	f := mustForward(t, config.Route{Path: "/*", Timeouts: config.Timeouts{Write: config.Duration(100 * time.Millisecond)}}, base, nil)
	c := dialed(t, f.Listener)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-left // the client reads nothing, and yet it ends
	<-f.released
}

// plain requests hold what plugs took until they end, and no longer.
func TestForwardEndsItsInfo(t *testing.T) {
	base := backend(t, func(http.ResponseWriter, *http.Request) {})
	f := mustForward(t, config.Route{Path: "/*"}, base, nil)
	ended := make(chan struct{}, 1)
	inner := f.forward
	inner.endpoint.Serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plug.From(r).OnEnd(func() { ended <- struct{}{} })
		inner.ServeHTTP(w, r)
	})
	resp, err := client(t).Get("http://" + f.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-ended
}

// An answer that pauses for longer than a client may take no data, and then
// ends, comes to its end.
func TestForwardPausesBeforeItsEnd(t *testing.T) {
	const write = 100 * time.Millisecond
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/said" {
			_, _ = io.WriteString(w, "some")
		}
		w.(http.Flusher).Flush()
		time.Sleep(3 * write)
	}))
	t.Cleanup(backend.Close)
	f := mustForward(t, config.Route{Path: "/*", HTTP: true, Timeouts: config.Timeouts{Write: config.Duration(write)}}, backend.URL, nil)
	for path, want := range map[string]string{"/said": "some", "/silent": ""} {
		resp, err := http.Get("http://" + f.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}
