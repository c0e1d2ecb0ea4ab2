package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/config"
)

// askWith sends one request with a body, nil for none, as the proxy does.
func askWith(ctx context.Context, p *Pool, r *HTTPRequest, body io.Reader) (*http.Response, error) {
	return p.RoundTrip(ctx, r, func(base *url.URL) (*http.Request, error) {
		method := http.MethodGet
		if body != nil {
			method = http.MethodPost
		}
		return http.NewRequestWithContext(ctx, method, base.JoinPath(r.RequestURI).String(), body)
	})
}

// ask sends one request. Its answer is closed with the test.
func ask(t *testing.T, p *Pool, r *HTTPRequest) (*http.Response, error) {
	t.Helper()
	resp, err := askWith(t.Context(), p, r, nil)
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return resp, err
}

// get returns the page that one request is answered with.
func get(t *testing.T, p *Pool, r *HTTPRequest) string {
	t.Helper()
	resp, err := ask(t, p, r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// page answers one request for each connection with what was asked.
func page(c net.Conn, req *http.Request) {
	body := fmt.Sprintf("%s %s %d", req.Host, req.URL.Path, req.ProtoMajor)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// both serves WebSockets and pages.
func both(c net.Conn, req *http.Request) {
	if req.Header.Get("Upgrade") != "" {
		welcome(c, req)
		return
	}
	page(c, req)
}

func TestRoundTrip(t *testing.T) {
	plain, unix := listen(t, page), listenUnix(t, page)
	a := newAuthority(t)
	secure := listenTLS(t, a, "localhost", tls.NoClientCert, page)
	host := plain.Addr().String()
	for _, tt := range []struct{ url, want string }{
		{plain.url(), host + " /x 1"},
		{plain.url() + "/base/", host + " /base/x 1"},
		{unix.url(), "localhost /x 1"},
		{secure + "/base", strings.TrimPrefix(secure, "wss://") + " /base/x 1"},
	} {
		u := upstreamOf(tt.url)
		u.TLS.CA = a.file("ca.crt")
		p := newPoolOf(t, u)
		for range 2 {
			if got := get(t, p, &HTTPRequest{RequestURI: "/x"}); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.url, got, tt.want)
			}
		}
		p.retire()
	}
}

func TestRoundTripCountsNoSessions(t *testing.T) {
	b := listen(t, both)
	u := upstreamOf(b.url(), nobody(t))
	u.MaxSessions = 1
	pools := NewPools(Options{})
	p := update(t, pools, u)
	c, err := p.Dial(t.Context(), &Handshake{Prefer: p.targets[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := pools.Drain("app", p.targets[1].name); err != nil {
		t.Fatal(err)
	}
	resp, err := ask(t, p, &HTTPRequest{})
	if err != nil {
		t.Fatalf("a target full of sessions takes no request: %v", err)
	}
	if got := targetNamed(t, pools, p.targets[0].name).Sessions; got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	via := p.targets[0].transport
	again, err := ask(t, p, &HTTPRequest{})
	if err != nil || p.targets[0].transport != via {
		t.Fatalf("another transport for the same target: %v", err)
	}
	if got := p.targets[0].requests; got != 2 {
		t.Errorf("%d requests under way, want 2", got)
	}
	resp.Body.Close()
	resp.Body.Close()
	again.Body.Close()
	if got := p.targets[0].requests; got != 0 {
		t.Errorf("%d requests left", got)
	}
	if err := pools.Drain("app", p.targets[0].name); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, p, &HTTPRequest{}); !errors.Is(err, ErrNoTarget) {
		t.Errorf("got %v", err)
	}
}

// TestRoundTripAttempts has targets that can't be connected to: others are
// asked, as often as dial.attempts lets them.
func TestRoundTripAttempts(t *testing.T) {
	tests := []struct {
		name     string
		live     bool // one more target, of the lowest weight
		dead     []string
		attempts int
		want     error
		tried    int
	}{
		{"one is there", true, []string{nobody(t), nobody(t)}, 3, nil, 0},
		{"it is not asked any more", true, []string{nobody(t), nobody(t)}, 2, ErrUnreachable, 2},
		{"one attempt", true, []string{nobody(t)}, 1, ErrUnreachable, 1},
		{"none is there", false, []string{nobody(t), nobody(t)}, 3, ErrUnreachable, 2},
		{"one is too slow", false, []string{nobody(t), unanswered(t)}, 3, ErrTimeout, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamOf(tt.dead...)
			u.Balance.Kind = config.BalanceRoundRobin
			u.Dial.Attempts = tt.attempts
			if tt.want == ErrTimeout {
				u.Dial.Timeout = milliseconds(50)
			}
			if tt.live {
				for i := range u.Targets {
					u.Targets[i].Weight = 10
				}
				b := listen(t, func(c net.Conn, req *http.Request) {
					body, _ := io.ReadAll(req.Body)
					_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", body)
				})
				u.Targets = append(u.Targets, config.Target{URL: b.url(), Weight: 1})
			}
			p := newPoolOf(t, u)
			resp, err := askWith(t.Context(), p, &HTTPRequest{}, &heldBody{Reader: strings.NewReader("body")})
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if failed, _ := errors.AsType[*DialError](err); failed != nil && len(failed.Attempts) != tt.tried {
				t.Errorf("tried %d, want %d: %v", len(failed.Attempts), tt.tried, err)
			}
			if err == nil {
				if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "body" {
					t.Errorf("the body came as %q, %v", got, err)
				}
				resp.Body.Close()
			}
			for _, target := range listed(p) {
				if target.requests != 0 {
					t.Errorf("%d requests left on %s", target.requests, target.name)
				}
			}
		})
	}
}

// heldBody is a body that whoever tries to send it does not close.
type heldBody struct{ io.Reader }

func (*heldBody) Close() error { return nil }

// unanswered returns the URL of a target that takes connections and leaves
// the TLS handshake unanswered.
func unanswered(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "wss://" + l.Addr().String()
}

// TestRoundTripIsSentOnce has a target that takes a request and goes.
func TestRoundTripIsSentOnce(t *testing.T) {
	bad := listen(t, func(net.Conn, *http.Request) {})
	good := listen(t, page)
	u := upstreamOf(bad.url(), good.url())
	u.Targets[0].Weight = 100
	u.Balance.Kind = config.BalanceRoundRobin
	p := newPoolOf(t, u)
	if _, err := askWith(t.Context(), p, &HTTPRequest{}, strings.NewReader("once")); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if bad.count() != 1 || good.count() != 0 {
		t.Errorf("%d and %d connections, want 1 and 0", bad.count(), good.count())
	}
}

// TestRoundTripWaitsForTheFirstAnswer sends a request before DNS has spoken.
func TestRoundTripWaitsForTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.set("10.0.0.1:80", page)
		n.name("a", nil, "10.0.0.1")
		pools := NewPools(n.options())
		p := update(t, pools, upstreamOf("dns+ws://a:80"))
		go func() {
			time.Sleep(time.Second)
			serve(t, pools)
		}()
		start := time.Now()
		if got, want := get(t, p, &HTTPRequest{RequestURI: "/x"}), "a /x 1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
	})
}

// TestHTTPDialsCount follows a target's failures in a row: connects that fail
// add to them, and answers end them, but not connections alone.
func TestHTTPDialsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		pools := NewPools(n.options())
		p := update(t, pools, upstreamOf("ws://10.0.0.1"))
		for i, step := range []struct {
			serve script
			want  int
		}{
			{nil, 1},
			{say(""), 1},
			{say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), 1},
			{nil, 2},
			{say("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), 0},
			{nil, 1},
			{page, 0},
		} {
			n.set("10.0.0.1:80", step.serve)
			if resp, err := askWith(t.Context(), p, &HTTPRequest{}, nil); err == nil {
				resp.Body.Close()
			}
			p.targets[0].idle()
			if got := p.targets[0].failed; got != step.want {
				t.Errorf("after step %d: %d failures in a row, want %d", i+1, got, step.want)
			}
		}
		got := targetNamed(t, pools, "10.0.0.1:80")
		if got.Dials != 7 || got.Failures != 3 || got.Sessions != 0 || p.results[resultOK] != 4 || p.results[resultFailed] != 3 {
			t.Errorf("counted %+v and %v", got, p.results)
		}
		if p.targets[0].busy() {
			t.Error("places were not given back")
		}
		synctest.Wait()
	})
}

// TestHTTPOutlier ejects a target that plain requests can't connect to.
func TestHTTPOutlier(t *testing.T) {
	n := newFakeNet()
	n.set("10.0.0.2:80", page)
	u := upstreamOf("ws://10.0.0.1", "ws://10.0.0.2")
	u.Balance.Kind = config.BalanceRoundRobin
	u.Outlier = &config.Outlier{Failures: 3, Eject: milliseconds(60_000), MaxEjected: 0.5}
	p := update(t, NewPools(n.options()), u)
	for range 20 {
		get(t, p, &HTTPRequest{})
	}
	if got := p.targets[0].State(); got != Ejected {
		t.Errorf("the target is %v", got)
	}
	if got := n.dialled("10.0.0.1:80"); got != 3 {
		t.Errorf("dialled %d times, want 3", got)
	}
}

// TestHTTPAndWebSocketMeet hashes a client's polling and its upgrade to the
// same target.
func TestHTTPAndWebSocketMeet(t *testing.T) {
	one, two, three := listen(t, both), listen(t, both), listen(t, both)
	u := upstreamOf(one.url(), two.url(), three.url())
	u.Balance = config.Balance{Kind: config.BalanceHash, Key: "ip"}
	p := newPoolOf(t, u)
	for i := range 30 {
		ip := fmt.Sprintf("10.0.0.%d", i)
		page := get(t, p, &HTTPRequest{IP: ip})
		c, err := p.Dial(t.Context(), &Handshake{IP: ip})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if host, _, _ := strings.Cut(page, " "); c.Target.Host() != host {
			t.Errorf("%s: %s and %s", ip, host, c.Target.Host())
		}
	}
}

// TestHTTPTLSReload replaces the CA file and reloads: the next request uses
// it.
func TestHTTPTLSReload(t *testing.T) {
	a := newAuthority(t)
	a.write(t, "trusted.crt", "CERTIFICATE", newAuthority(t).cert.Raw)
	u := upstreamOf(listenTLS(t, a, "localhost", tls.NoClientCert, page))
	u.TLS.CA = a.file("trusted.crt")
	pools := NewPools(Options{})
	p := update(t, pools, u)
	if _, err := ask(t, p, &HTTPRequest{}); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("an unknown authority is believed: %v", err)
	}
	a.write(t, "trusted.crt", "CERTIFICATE", a.cert.Raw)
	update(t, pools, u)
	get(t, p, &HTTPRequest{RequestURI: "/"})
	p.retire()
}

// TestHTTPTLSHandshakeTimeout sends a request to a target that takes the
// connection and leaves the TLS handshake unanswered.
func TestHTTPTLSHandshakeTimeout(t *testing.T) {
	u := upstreamOf(unanswered(t))
	u.Dial.Timeout = milliseconds(50)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := askWith(ctx, newPoolOf(t, u), &HTTPRequest{}, nil); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

// TestHTTPExpect holds a body back until the upstream asks for it: one that
// refuses the request never gets any of it.
func TestHTTPExpect(t *testing.T) {
	const held = "held back"
	for _, tt := range []struct {
		name, answer string
		want         string // what the upstream gets of the body
	}{
		{"refused", "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", ""},
		{"asked for", "HTTP/1.1 100 Continue\r\n\r\n", held},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan string, 1)
			b := listen(t, func(c net.Conn, req *http.Request) {
				_, _ = io.WriteString(c, tt.answer)
				body := make([]byte, len(tt.want))
				_, _ = io.ReadFull(req.Body, body)
				got <- string(body)
				if tt.want != "" {
					page(c, req)
				}
			})
			p := newPoolOf(t, upstreamOf(b.url()))
			defer p.retire()
			body := &watchedBody{Reader: strings.NewReader(held)}
			resp, err := p.RoundTrip(t.Context(), &HTTPRequest{}, func(base *url.URL) (*http.Request, error) {
				req, err := http.NewRequestWithContext(t.Context(), "POST", base.String(), body)
				if err == nil {
					req.ContentLength = int64(len(held))
					req.Header.Set("Expect", "100-continue")
				}
				return req, err
			})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if g := <-got; g != tt.want {
				t.Errorf("the upstream got %q, want %q", g, tt.want)
			}
			if tt.want == "" && body.read.Load() {
				t.Error("the client was asked for its body")
			}
		})
	}
}

// watchedBody says whether it was read.
type watchedBody struct {
	io.Reader
	read atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}
