package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// get sends one plain request as the proxy does.
func get(t *testing.T, p *Pool, r *HTTPRequest) string {
	t.Helper()
	base, rt, release, err := p.PickHTTP(r)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	req, err := http.NewRequestWithContext(t.Context(), "GET", base.JoinPath(r.RequestURI).String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
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

func TestPickHTTP(t *testing.T) {
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

func TestPickHTTPCountsNoSessions(t *testing.T) {
	b := listen(t, welcome)
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
	_, rt, release, err := p.PickHTTP(&HTTPRequest{})
	if err != nil {
		t.Fatalf("a target full of sessions takes no request: %v", err)
	}
	if got := targetNamed(t, pools, p.targets[0].name).Sessions; got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	_, again, release2, err := p.PickHTTP(&HTTPRequest{})
	if err != nil || again != rt {
		t.Errorf("another transport for the same target: %v", err)
	}
	release()
	release()
	release2()
	if got := p.targets[0].requests; got != 0 {
		t.Errorf("%d requests left", got)
	}
	if err := pools.Drain("app", p.targets[0].name); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := p.PickHTTP(&HTTPRequest{}); !errors.Is(err, ErrNoTarget) {
		t.Errorf("got %v", err)
	}
}

// TestHTTPAndWebSocketMeet hashes a client's polling and its upgrade to the
// same target.
func TestHTTPAndWebSocketMeet(t *testing.T) {
	one, two, three := listen(t, welcome), listen(t, welcome), listen(t, welcome)
	u := upstreamOf(one.url(), two.url(), three.url())
	u.Balance = config.Balance{Kind: config.BalanceHash, Key: "ip"}
	p := newPoolOf(t, u)
	for i := range 30 {
		ip := fmt.Sprintf("10.0.0.%d", i)
		base, _, release, err := p.PickHTTP(&HTTPRequest{IP: ip})
		if err != nil {
			t.Fatal(err)
		}
		release()
		c, err := p.Dial(t.Context(), &Handshake{IP: ip})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if c.Target.Host() != base.Host {
			t.Errorf("%s: %s and %s", ip, base.Host, c.Target.Host())
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
	base, rt, release, err := p.PickHTTP(&HTTPRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	req, err := http.NewRequestWithContext(t.Context(), "GET", base.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := rt.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Fatal("an unknown authority is believed")
	}
	a.write(t, "trusted.crt", "CERTIFICATE", a.cert.Raw)
	update(t, pools, u)
	get(t, p, &HTTPRequest{RequestURI: "/"})
	p.retire()
}

// TestHTTPTLSHandshakeTimeout sends a request to a target that takes the
// connection and leaves the TLS handshake unanswered.
func TestHTTPTLSHandshakeTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes it
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u := upstreamOf("wss://" + l.Addr().String())
	u.Dial.Timeout = milliseconds(50)
	base, rt, release, err := newPoolOf(t, u).PickHTTP(&HTTPRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", base.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.RoundTrip(req); !errors.Is(err, ErrTimeout) {
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
			base, rt, release, err := p.PickHTTP(&HTTPRequest{})
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			body := &watchedBody{Reader: strings.NewReader(held)}
			req, err := http.NewRequestWithContext(t.Context(), "POST", base.String(), body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = int64(len(held))
			req.Header.Set("Expect", "100-continue")
			resp, err := rt.RoundTrip(req)
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
