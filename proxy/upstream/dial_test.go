package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// TestHandshakeOnTheWire compares the bytes that a target gets.
func TestHandshakeOnTheWire(t *testing.T) {
	tests := []struct {
		name      string
		path      string // of the target
		handshake Handshake
		want      string // with KEY and TARGET
	}{
		{
			name:      "empty",
			handshake: Handshake{},
			want:      "GET / HTTP/1.1\r\nHost: TARGET\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n",
		},
		{
			name: "everything",
			path: "/base/",
			handshake: Handshake{
				RequestURI: "/a%2Fb//c?x=1;y=%zz&x", Host: "chat.example.com",
				Header: []byte("X-One: 1\r\nCookie: a=b; c=d\r\n"), Extra: []byte("Stent-Attempt: 2\r\n"),
			},
			want: "GET /base/a%2Fb//c?x=1;y=%zz&x HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\nX-One: 1\r\nCookie: a=b; c=d\r\nStent-Attempt: 2\r\n\r\n",
		},
		{
			name:      "query alone",
			handshake: Handshake{RequestURI: "?q"},
			want:      "GET /?q HTTP/1.1\r\nHost: TARGET\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n",
		},
		{
			name:      "query alone behind a path",
			path:      "/base",
			handshake: Handshake{RequestURI: "?q"},
			want:      "GET /base?q HTTP/1.1\r\nHost: TARGET\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n",
		},
	}
	key := regexp.MustCompile(`Sec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan string, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					got <- err.Error()
					return
				}
				defer c.Close()
				b := make([]byte, 4096)
				n, _ := c.Read(b)
				got <- string(b[:n])
			}()
			p := newPoolOf(t, upstreamOf("ws://"+l.Addr().String()+tt.path))
			if _, err := p.Dial(t.Context(), &tt.handshake); !errors.Is(err, ErrUnreachable) {
				t.Errorf("Dial: %v", err)
			}
			wire := <-got
			if !key.MatchString(wire) {
				t.Errorf("no 16-byte key in %q", wire)
			}
			wire = key.ReplaceAllString(wire, "Sec-WebSocket-Key: KEY\r\n")
			if want := strings.ReplaceAll(tt.want, "TARGET", l.Addr().String()); wire != want {
				t.Errorf("got  %q\nwant %q", wire, want)
			}
		})
	}
}

func TestDialRefusesToSendNonsense(t *testing.T) {
	b := listen(t, welcome)
	p := newPoolOf(t, upstreamOf(b.url()))
	for name, h := range map[string]Handshake{
		"absolute form":       {RequestURI: "http://other/"},
		"space in the path":   {RequestURI: "/a b"},
		"newline in the host": {Host: "a\r\nX: 1"},
		"unfinished header":   {Header: []byte("A: b")},
		"empty line":          {Header: []byte("A: b\r\n\r\nGET / HTTP/1.1\r\n")},
		"empty line first":    {Extra: []byte("\r\n")},
		"bare line feed":      {Header: []byte("A: b\n\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := p.Dial(t.Context(), &h); err == nil {
				c.Close()
				t.Error("dialled")
			}
		})
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}

// TestDialAnswers gives each kind of answer to one dial.
func TestDialAnswers(t *testing.T) {
	ok := func(lines string) script {
		return func(c net.Conn, req *http.Request) {
			_, _ = io.WriteString(c, accept(req, lines))
			_, _ = io.Copy(io.Discard, c)
		}
	}
	with := func(format string) script {
		return func(c net.Conn, req *http.Request) {
			_, _ = io.WriteString(c, strings.ReplaceAll(format, "ACCEPT", acceptOf(req)))
		}
	}
	const head = "HTTP/1.1 101 Switching Protocols\r\n"
	tests := []struct {
		name   string
		serve  script
		header string
		want   error  // nil: accepted; a *BadAnswer's reason is compared
		reason string // part of the error's text
	}{
		{name: "101", serve: ok("")},
		{name: "subprotocol", serve: ok("Sec-WebSocket-Protocol: b\r\n"), header: "Sec-WebSocket-Protocol: a, b\r\n"},
		{name: "subprotocol on a second line", serve: ok("Sec-WebSocket-Protocol: b\r\n"), header: "Sec-WebSocket-Protocol: a\r\nsec-websocket-protocol:b\r\n"},
		{name: "extension", serve: ok("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"), header: "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"},
		{name: "tokens among others", serve: with(head + "Upgrade: foo, WebSocket\r\nConnection: keep-alive, UPGRADE\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n")},
		{name: "after interim answers", serve: with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n")},
		{name: "header of 60 KiB", serve: ok("X: " + strings.Repeat("x", 60<<10) + "\r\n")},
		{name: "long status line", serve: with("HTTP/1.1 101 " + strings.Repeat("y", 8<<10) + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n")},

		{name: "closed at once", serve: say(""), want: ErrUnreachable, reason: "closed before"},
		{name: "closed within the header", serve: say(head + "Upgrade: web"), want: ErrUnreachable, reason: "closed before"},
		{name: "not HTTP", serve: say("SSH-2.0-OpenSSH_9.2\r\n"), want: ErrUnreachable, reason: "not HTTP"},
		{name: "binary", serve: say("\x00\x01\x02\x03\r\n\r\n\xff"), want: ErrUnreachable, reason: "not HTTP"},
		{name: "status 000", serve: say("HTTP/1.1 000 Nothing\r\n\r\n"), want: ErrUnreachable, reason: "status"},
		{name: "status -12", serve: say("HTTP/1.1 -12 Nothing\r\n\r\n"), want: ErrUnreachable},
		{name: "control character in a header", serve: say("HTTP/1.1 403 No\r\nA: b\x01c\r\n\r\n"), want: ErrUnreachable, reason: "malformed"},
		{name: "carriage return in a header", serve: say("HTTP/1.1 403 No\r\nA: b\rSet-Cookie: c\r\n\r\n"), want: ErrUnreachable, reason: "malformed"},
		{name: "endless interim answers", serve: say(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50)), want: ErrUnreachable, reason: "interim"},
		{name: "header above 64 KiB", serve: ok("X: " + strings.Repeat("x", 65<<10) + "\r\n"), want: ErrUnreachable, reason: "larger than"},
		{name: "endless header", serve: ok(strings.Repeat("X: y\r\n", 100_000)), want: ErrUnreachable, reason: "larger than"},
		{name: "no Upgrade", serve: with(head + "Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), want: ErrUnreachable, reason: "without Upgrade"},
		{name: "Upgrade to something else", serve: with(head + "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), want: ErrUnreachable, reason: "without Upgrade"},
		{name: "no Connection", serve: with(head + "Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), want: ErrUnreachable, reason: "without Connection"},
		{name: "no Accept", serve: say(head + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), want: ErrUnreachable, reason: "Accept"},
		{name: "wrong Accept", serve: say(head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n"), want: ErrUnreachable, reason: "Accept"},
		{name: "two Accepts", serve: ok("Sec-WebSocket-Accept: AAAA\r\n"), want: ErrUnreachable, reason: "Accept"},
		{name: "subprotocol not offered", serve: ok("Sec-WebSocket-Protocol: c\r\n"), header: "Sec-WebSocket-Protocol: a, b\r\n", want: ErrUnreachable, reason: `"c"`},
		{name: "subprotocol in another case", serve: ok("Sec-WebSocket-Protocol: A\r\n"), header: "Sec-WebSocket-Protocol: a\r\n", want: ErrUnreachable, reason: `"A"`},
		{name: "subprotocol, none offered", serve: ok("Sec-WebSocket-Protocol: c\r\n"), want: ErrUnreachable, reason: `"c"`},
		{name: "two subprotocols", serve: ok("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n"), header: "Sec-WebSocket-Protocol: a, b\r\n", want: ErrUnreachable, reason: "more than one"},
		{name: "two subprotocols on a line", serve: ok("Sec-WebSocket-Protocol: a, b\r\n"), header: "Sec-WebSocket-Protocol: a, b\r\n", want: ErrUnreachable, reason: "not offered"},
		{name: "extension not offered", serve: ok("Sec-WebSocket-Extensions: permessage-deflate\r\n"), want: ErrUnreachable, reason: "permessage-deflate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := listen(t, tt.serve)
			pools := NewPools(Options{})
			p := update(t, pools, upstreamOf(b.url()))
			c, err := p.Dial(t.Context(), &Handshake{RequestURI: "/", Header: []byte(tt.header)})
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if c.Response.StatusCode != 101 || c.Target.Address() != b.url() {
					t.Errorf("status %d of %s", c.Response.StatusCode, c.Target.Address())
				}
				c.Close()
				return
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if _, ok := errors.AsType[*BadAnswer](err); !ok {
				t.Errorf("no BadAnswer in %#v", err)
			}
			if !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("got %q, want %q in it", err, tt.reason)
			}
			if got := pools.Snapshot()[0].Targets[0]; got.Failures != 1 || got.Dials != 1 || got.Sessions != 0 {
				t.Errorf("counts %+v", got)
			}
		})
	}
}

func TestDialRefusal(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	tests := []struct {
		name   string
		answer string
		status int
		body   string
	}{
		{"length", "HTTP/1.1 403 Forbidden\r\nX-Why: because\r\nContent-Length: 2\r\n\r\nno", 403, "no"},
		{"chunked", "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 401, "no"},
		{"to the end", "HTTP/1.1 503 Busy\r\n\r\n" + big, 503, big},
		{"no body", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, ""},
		{"HTTP/1.0", "HTTP/1.0 400 Bad Request\r\n\r\nold", 400, "old"},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, ""},
		{"success", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi"},
		{"after an early hint", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426, ""},
		{"unknown status", "HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", 799, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, other := listen(t, say(tt.answer)), listen(t, welcome)
			u := upstreamOf(b.url(), other.url())
			pools := NewPools(Options{})
			p := update(t, pools, u)
			h := &Handshake{RequestURI: "/", Prefer: p.targets[0]}
			_, err := p.Dial(t.Context(), h)
			refused, ok := errors.AsType[*Refused](err)
			if !ok {
				t.Fatalf("got %v, want a Refused", err)
			}
			defer refused.Response.Body.Close()
			if refused.Response.StatusCode != tt.status {
				t.Errorf("status %d, want %d", refused.Response.StatusCode, tt.status)
			}
			body, err := io.ReadAll(refused.Response.Body)
			if err != nil || string(body) != tt.body {
				t.Errorf("body of %d bytes, %v; want %d", len(body), err, len(tt.body))
			}
			if n := other.count(); n != 0 {
				t.Errorf("another target was asked")
			}
			if got := pools.Snapshot()[0].Targets[0]; got.Sessions != 0 || got.Failures != 0 || got.Dials != 1 {
				t.Errorf("counts %+v", got)
			}
		})
	}
}

// TestRefusalOfARedial asks the next target where the first refuses for now,
// and closes what it does not hand out.
func TestRefusalOfARedial(t *testing.T) {
	for _, tt := range []struct {
		status string
		passes bool
	}{
		{"503 Busy", true}, {"500 Oops", true}, {"429 Slow Down", true}, {"408 Too Slow", true},
		{"302 Elsewhere", true}, {"200 OK", true}, {"401 No", false}, {"404 None", false},
	} {
		t.Run(tt.status, func(t *testing.T) {
			closed := make(chan struct{})
			bad := listen(t, func(c net.Conn, req *http.Request) {
				_, _ = io.WriteString(c, "HTTP/1.1 "+tt.status+"\r\nContent-Length: 9\r\n\r\n")
				silent(c, req)
				close(closed)
			})
			good := listen(t, welcome)
			p := newPoolOf(t, upstreamOf(bad.url(), good.url()))
			c, err := p.Dial(t.Context(), &Handshake{Redial: true, Prefer: p.targets[0]})
			if refused, ok := errors.AsType[*Refused](err); ok {
				refused.Response.Body.Close()
			}
			if (err == nil) != tt.passes {
				t.Errorf("got %v; want another target tried: %v", err, tt.passes)
			}
			if err == nil {
				c.Close()
			}
			<-closed
		})
	}
}

// TestRefusalBodyStalls holds the rest of a body back: whoever reads it is
// not held for ever.
func TestRefusalBodyStalls(t *testing.T) {
	b := listen(t, func(c net.Conn, _ *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nno")
		_, _ = io.Copy(io.Discard, c)
	})
	u := upstreamOf(b.url())
	u.Dial.Timeout = milliseconds(100)
	_, err := newPoolOf(t, u).Dial(t.Context(), &Handshake{})
	refused, ok := errors.AsType[*Refused](err)
	if !ok {
		t.Fatalf("got %v, want a Refused", err)
	}
	defer refused.Response.Body.Close()
	body, err := io.ReadAll(refused.Response.Body)
	if late, ok := errors.AsType[net.Error](err); !ok || !late.Timeout() || string(body) != "no" {
		t.Errorf("got %q, %v; want a timeout after %q", body, err, "no")
	}
}

func TestEarlyBytes(t *testing.T) {
	const first = "\x81\x05hello"
	rest := strings.Repeat("r", 100<<10)
	b := listen(t, func(c net.Conn, req *http.Request) {
		_, _ = io.WriteString(c, accept(req, "")+first+rest)
	})
	c, err := newPoolOf(t, upstreamOf(b.url())).Dial(t.Context(), &Handshake{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !strings.HasPrefix(string(c.Early), first) {
		t.Errorf("early %.20q, want it to begin with %q", c.Early, first)
	}
	more, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Early) + string(more); got != first+rest {
		t.Errorf("%d bytes, want %d", len(got), len(first+rest))
	}
}

func TestAnswerByteByByte(t *testing.T) {
	b := listen(t, func(c net.Conn, req *http.Request) {
		for _, one := range []byte(accept(req, "X-Slow: yes\r\n")) {
			_, _ = c.Write([]byte{one})
		}
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := newPoolOf(t, upstreamOf(b.url())).Dial(t.Context(), &Handshake{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Response.Header.Get("X-Slow") != "yes" || len(c.Early) != 0 {
		t.Errorf("header %v, early %q", c.Response.Header, c.Early)
	}
}

// TestConnOutlivesTheDial checks that neither the end of ctx nor
// dial.timeout touches an established connection.
func TestConnOutlivesTheDial(t *testing.T) {
	b := listen(t, func(c net.Conn, req *http.Request) {
		_, _ = io.WriteString(c, accept(req, ""))
		_, _ = io.Copy(c, c)
	})
	u := upstreamOf(b.url())
	u.Dial.Timeout = milliseconds(50)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := newPoolOf(t, u).Dial(ctx, &Handshake{})
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-time.After(80 * time.Millisecond) // beyond the timeout
	echo := make([]byte, 4)
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, echo); err != nil || string(echo) != "ping" {
		t.Errorf("got %q, %v", echo, err)
	}
}

func TestDialTimeout(t *testing.T) {
	for name, answer := range map[string]string{"no answer": "", "half an answer": "HTTP/1.1 101 Sw", "header without end": "HTTP/1.1 403 No\r\n"} {
		t.Run(name, func(t *testing.T) {
			closed := make(chan struct{})
			b := listen(t, func(c net.Conn, req *http.Request) {
				_, _ = io.WriteString(c, answer)
				silent(c, req)
				close(closed)
			})
			u := upstreamOf(b.url())
			u.Dial.Timeout = milliseconds(50)
			_, err := newPoolOf(t, u).Dial(t.Context(), &Handshake{})
			if !errors.Is(err, ErrTimeout) || errors.Is(err, ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want ErrTimeout alone", err)
			}
			<-closed
		})
	}
}

func TestDialTriesOtherTargets(t *testing.T) {
	slow := listen(t, silent)
	tests := []struct {
		name     string
		targets  func(good *backend) []string
		attempts int
		want     error
		tried    int
	}{
		{"the third is good", func(good *backend) []string {
			return []string{nobody(t), listen(t, say("what?\r\n")).url(), good.url()}
		}, 3, nil, 0},
		{"too few attempts", func(good *backend) []string {
			return []string{nobody(t), nobody(t), good.url()}
		}, 2, ErrUnreachable, 2},
		{"none twice", func(*backend) []string { return []string{nobody(t), nobody(t)} }, 9, ErrUnreachable, 2},
		{"one refused, one too late", func(*backend) []string { return []string{nobody(t), slow.url()} }, 3, ErrTimeout, 2},
		{"all too late", func(*backend) []string { return []string{slow.url()} }, 3, ErrTimeout, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good := listen(t, welcome)
			u := upstreamOf(tt.targets(good)...)
			u.Balance.Kind = config.BalanceRoundRobin
			u.Dial = config.Dial{Timeout: milliseconds(100), Attempts: tt.attempts}
			c, err := newPoolOf(t, u).Dial(t.Context(), &Handshake{})
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				return
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			failed, ok := errors.AsType[*DialError](err)
			if !ok || len(failed.Attempts) != tt.tried {
				t.Fatalf("%d attempts, want %d: %v", len(failed.Attempts), tt.tried, err)
			}
			if tt.want == ErrTimeout && errors.Is(err, ErrUnreachable) {
				t.Error("both a timeout and unreachable")
			}
		})
	}
}

func TestDialCanceled(t *testing.T) {
	asked := make(chan struct{})
	closed := make(chan struct{})
	b := listen(t, func(c net.Conn, req *http.Request) {
		close(asked)
		silent(c, req)
		close(closed)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	pools := NewPools(Options{})
	p := update(t, pools, upstreamOf(b.url(), nobody(t)))
	_, err := p.Dial(ctx, &Handshake{Prefer: p.targets[0]})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	<-closed
	if got := pools.Snapshot()[0].Targets[0]; got.Failures != 0 || got.Sessions != 0 {
		t.Errorf("counts %+v", got)
	}
	if _, err := p.Dial(ctx, &Handshake{}); !errors.Is(err, context.Canceled) {
		t.Errorf("dial after the end: %v", err)
	}
}

func TestDialCheck(t *testing.T) {
	mind := errors.New("wrong negotiation")
	one, two := listen(t, welcome), listen(t, func(c net.Conn, req *http.Request) {
		_, _ = io.WriteString(c, accept(req, "X-Good: 1\r\n"))
		silent(c, req)
	})
	good := func(r *http.Response) error {
		if r.Header.Get("X-Good") == "" {
			return mind
		}
		return nil
	}
	pools := NewPools(Options{})
	p := update(t, pools, upstreamOf(one.url(), two.url()))
	c, err := p.Dial(t.Context(), &Handshake{Check: good, Prefer: p.targets[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Target.Address() != two.url() {
		t.Errorf("dialled %s", c.Target.Address())
	}
	_, err = p.Dial(t.Context(), &Handshake{Check: func(*http.Response) error { return mind }})
	if !errors.Is(err, mind) || !errors.Is(err, ErrUnsuitable) {
		t.Errorf("got %v", err)
	}
	for _, target := range pools.Snapshot()[0].Targets {
		if target.Failures != 0 {
			t.Errorf("a failure was counted: %+v", target)
		}
	}
}

func TestAvoidAndPrefer(t *testing.T) {
	one, two := listen(t, welcome), listen(t, welcome)
	p := newPoolOf(t, upstreamOf(one.url(), two.url()))
	dial := func(h Handshake) string {
		t.Helper()
		c, err := p.Dial(t.Context(), &h)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Target.Address()
	}
	a, b := p.targets[0], p.targets[1]
	for range 20 {
		if got := dial(Handshake{Avoid: a}); got != b.Address() {
			t.Fatalf("avoiding %s gave it", a.Address())
		}
		if got := dial(Handshake{Prefer: a}); got != a.Address() {
			t.Fatalf("preferring %s gave %s", a.Address(), got)
		}
	}
	if err := p.setDrained(b.Name(), true); err != nil {
		t.Fatal(err)
	}
	if got := dial(Handshake{Avoid: a, Prefer: b}); got != a.Address() {
		t.Errorf("got %s, want the only one there is", got)
	}
}

// Targets that are dead have the fewest sessions. They cost attempts, but never
// all of them, once they are known.
func TestDoubtfulTargetsAreAskedLast(t *testing.T) {
	one, two, alive, own := listen(t, say("nonsense")), listen(t, say("nonsense")), listen(t, welcome), listen(t, welcome)
	for _, tt := range []struct {
		name     string
		attempts int
		h        Handshake
		avoid    int // of the pool's targets; -1 is none
		want     int
	}{
		{"a client", 2, Handshake{}, -1, 2},
		{"one that is held", 2, Handshake{Redial: true}, 3, 2},
		{"one that is held, asked again", 1, Handshake{Redial: true, Again: true}, 3, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamOf(one.url(), two.url(), alive.url(), own.url())
			u.Dial.Attempts = tt.attempts
			p := newPoolOf(t, u)
			p.mu.Lock()
			p.targets[0].doubtful, p.targets[1].doubtful = true, true
			p.targets[2].sessions, p.targets[3].sessions = 10, 20
			p.mu.Unlock()
			if tt.avoid >= 0 {
				tt.h.Avoid = p.targets[tt.avoid]
			}
			c, err := p.Dial(t.Context(), &tt.h)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.Target != p.targets[tt.want] {
				t.Errorf("got %s", c.Target.Name())
			}
		})
	}
	t.Run("all have their turn", func(t *testing.T) {
		u := upstreamOf(one.url(), two.url(), alive.url(), own.url())
		u.Dial.Attempts = 2
		p := newPoolOf(t, u)
		p.mu.Lock()
		for _, target := range p.targets {
			target.doubtful = true
		}
		p.targets[2].sessions = 10
		p.mu.Unlock()
		for round := 0; ; round++ {
			c, err := p.Dial(t.Context(), &Handshake{Redial: true, Again: true, Avoid: p.targets[2]})
			if err == nil {
				c.Close()
				break
			}
			if round == 2 {
				t.Fatal(err)
			}
		}
	})
	t.Run("the target that was lost comes before them", func(t *testing.T) {
		p := newPoolOf(t, upstreamOf(one.url(), two.url(), own.url()))
		c, err := p.Dial(t.Context(), &Handshake{Redial: true, Again: true, Avoid: p.targets[2]})
		if err == nil {
			c.Close()
		}
		c, err = p.Dial(t.Context(), &Handshake{Redial: true, Again: true, Avoid: p.targets[2]})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if n := p.targets[0].dials + p.targets[1].dials; n != 2 {
			t.Errorf("%d dials of dead targets, want one of each", n)
		}
	})
}

// TestMaxSessionsIsExact dials from many goroutines at once: no target ever
// has more than its share, and none stays short of it.
func TestMaxSessionsIsExact(t *testing.T) {
	const each, targets = 7, 3
	var urls []string
	var backends []*backend
	for range targets {
		b := listen(t, welcome)
		backends = append(backends, b)
		urls = append(urls, b.url())
	}
	u := upstreamOf(urls...)
	u.MaxSessions = each
	pools := NewPools(Options{})
	p := update(t, pools, u)

	var mu sync.Mutex
	var conns []*Conn
	full := 0
	var dialers sync.WaitGroup
	for range 3 * each * targets {
		dialers.Go(func() {
			c, err := p.Dial(t.Context(), &Handshake{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				conns = append(conns, c)
			case errors.Is(err, ErrNoTarget):
				full++
			default:
				t.Error(err)
			}
		})
	}
	dialers.Wait()
	if len(conns) != each*targets || full != 2*each*targets {
		t.Errorf("%d sessions and %d refused, want %d and %d", len(conns), full, each*targets, 2*each*targets)
	}
	for i, b := range backends {
		if n := b.count(); n != each {
			t.Errorf("target %d was dialled %d times, want %d", i, n, each)
		}
	}
	for _, c := range conns {
		for range 3 { // a place is given back once only
			c.Release()
			c.Close()
		}
	}
	for _, target := range pools.Snapshot()[0].Targets {
		if target.Sessions != 0 {
			t.Errorf("%d sessions left on %s", target.Sessions, target.Name)
		}
	}
	if p.targets[0].dialling != 0 {
		t.Errorf("%d places left", p.targets[0].dialling)
	}
}

func TestNoTargetSaysWhy(t *testing.T) {
	b := listen(t, welcome)
	u := upstreamOf(b.url(), nobody(t))
	u.MaxSessions = 1
	p := newPoolOf(t, u)
	if err := p.setDrained(p.targets[1].name, true); err != nil {
		t.Fatal(err)
	}
	c, err := p.Dial(t.Context(), &Handshake{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = p.Dial(t.Context(), &Handshake{})
	if want := "upstream app: no target available: 1 draining, 1 full"; !errors.Is(err, ErrNoTarget) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestUnixTarget(t *testing.T) {
	host := make(chan string, 1)
	b := listenUnix(t, func(c net.Conn, req *http.Request) {
		host <- req.Host
		welcome(c, req)
	})
	c, err := newPoolOf(t, upstreamOf(b.url())).Dial(t.Context(), &Handshake{RequestURI: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-host; got != "localhost" {
		t.Errorf("Host %q", got)
	}
	if got := c.Target.Name(); got != b.url() {
		t.Errorf("name %q, want %q", got, b.url())
	}
}

// TestRemovedWhileDialled takes the target away while its dial is under way:
// it stays until that ends, and no longer.
func TestRemovedWhileDialled(t *testing.T) {
	asked := make(chan struct{})
	b := listen(t, func(c net.Conn, req *http.Request) {
		close(asked)
		silent(c, req)
	})
	pools := NewPools(Options{})
	p := update(t, pools, upstreamOf(b.url()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := p.Dial(ctx, &Handshake{})
		done <- err
	}()
	<-asked
	update(t, pools, upstreamOf(nobody(t)))
	if got := pools.Snapshot()[0].Targets; len(got) != 2 || got[1].State != Draining {
		t.Errorf("got %+v, want the old target draining", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := pools.Snapshot()[0].Targets; len(got) != 1 {
		t.Errorf("got %+v, want the old target gone", got)
	}
}

// cancelingConn ends the dial's ctx just as its answer is read.
type cancelingConn struct {
	answerConn
	cancel context.CancelFunc
}

func (c *cancelingConn) Read(b []byte) (int, error) {
	c.cancel()
	return c.answerConn.Read(b)
}

// TestCanceledWithTheAnswer ends ctx between the answer and the return: the
// connection, whose deadline is being set, must not be handed out.
func TestCanceledWithTheAnswer(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n",
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
	} {
		pools := NewPools(Options{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return &cancelingConn{answerConn{answer: []byte(answer)}, ctx.Value(cancelKey{}).(context.CancelFunc)}, nil
		}})
		p := update(t, pools, upstreamOf("ws://10.0.0.1"))
		ctx, cancel := context.WithCancel(t.Context())
		_, err := p.Dial(context.WithValue(ctx, cancelKey{}, cancel), &Handshake{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if got := targetNamed(t, pools, "10.0.0.1:80"); got.Sessions != 0 || got.Failures != 0 {
			t.Errorf("counts %+v", got)
		}
	}
}

type cancelKey struct{}
