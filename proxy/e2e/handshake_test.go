package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// refusingUpstream is an upstream that does not open a session, and what the
// client must be told.
type refusingUpstream struct {
	name   string
	script func(*wire.Conn)
	status int
	// header and body are what the client must see of the upstream's answer.
	header map[string]string
	body   string
}

func answers(s string) func(*wire.Conn) {
	return func(c *wire.Conn) {
		if c.Hear() == nil {
			_, _ = c.Write([]byte(s))
		}
	}
}

// welcomes answers with a 101 that change has spoilt.
func welcomes(change func(string) string) func(*wire.Conn) {
	return func(c *wire.Conn) {
		if c.Hear() == nil {
			_, _ = c.Write([]byte(change(string(c.Welcome()))))
		}
	}
}

func replaced(old, new string) func(*wire.Conn) {
	return welcomes(func(s string) string { return strings.Replace(s, old, new, 1) })
}

var refusingUpstreams = []refusingUpstream{
	{
		name:   "401 with a body",
		script: answers("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Type: application/json\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 14\r\n\r\n{\"no\":\"entry\"}"),
		status: 401, header: map[string]string{"Www-Authenticate": "Bearer", "Content-Type": "application/json", "X-A": "1"}, body: `{"no":"entry"}`,
	},
	{
		name:   "403 in chunks",
		script: answers("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
		status: 403, body: "hello world",
	},
	{
		name:   "503 until the connection's end",
		script: answers("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\nConnection: close\r\n\r\nbusy"),
		status: 503, header: map[string]string{"Retry-After": "9"}, body: "busy",
	},
	{
		name:   "302, which is the client's to follow",
		script: answers("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/x\r\nContent-Length: 0\r\n\r\n"),
		status: 302, header: map[string]string{"Location": "http://elsewhere.example/x"},
	},
	{
		name:   "200, a page",
		script: answers("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
		status: 200, body: "page",
	},
	{
		name:   "a large refusal",
		script: answers("HTTP/1.1 400 Bad Request\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)),
		status: 400, body: strings.Repeat("x", 100000),
	},
	{name: "no HTTP", script: answers("SSH-2.0-OpenSSH_9.2\r\n"), status: 502},
	{name: "nothing and a FIN", script: func(c *wire.Conn) { _ = c.Hear() }, status: 502},
	{name: "nothing and a RST", script: func(c *wire.Conn) { _ = c.Hear(); _ = c.Abort() }, status: 502},
	{name: "half an answer", script: answers("HTTP/1.1 101 Switching"), status: 502},
	{name: "endless headers", script: func(c *wire.Conn) {
		if c.Hear() == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n")
			for range 100_000 {
				if _, err := io.WriteString(c, "X-Long: "+strings.Repeat("y", 100)+"\r\n"); err != nil {
					return
				}
			}
		}
	}, status: 502},
	{name: "101 without Upgrade", script: replaced("Upgrade: websocket\r\n", ""), status: 502},
	{name: "101 with another Upgrade", script: replaced("Upgrade: websocket", "Upgrade: h2c"), status: 502},
	{name: "101 without Connection", script: replaced("Connection: Upgrade\r\n", ""), status: 502},
	{name: "101 with a wrong accept", script: replaced("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: A"), status: 502},
	{name: "101 without accept", script: replaced("Sec-WebSocket-Accept", "X-Accept"), status: 502},
	{name: "101 with a subprotocol unasked", script: replaced("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), status: 502},
	{name: "101 with an extension unasked", script: replaced("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-odd\r\n\r\n"), status: 502},
	{name: "101 with compression unasked", script: replaced("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), status: 502},
	{name: "silence", script: func(c *wire.Conn) { _ = c.Hear(); _, _ = c.Reader.Peek(1) }, status: 504},
}

func TestUpstreamHandshake(t *testing.T) {
	gate(t)
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			var routes, upstreams strings.Builder
			for i, u := range refusingUpstreams {
				fmt.Fprintf(&routes, "  - path: /%d\n    upstream: u%d\n%s", i, i, w.mode())
				fmt.Fprintf(&upstreams, "  u%d: {targets: [ws://%s], dial: {timeout: 500ms, attempts: 1}}\n", i, listen(t, u.script))
			}
			fmt.Fprintf(&routes, "  - {path: /closed, upstream: closed}\n")
			fmt.Fprintf(&upstreams, "  closed: {targets: [ws://%s]}\n", freeAddress(t))
			s := startStent(t, fmt.Sprintf("log: {level: error}\nroutes:\n%supstreams:\n%s", &routes, &upstreams))
			for i, u := range refusingUpstreams {
				t.Run(u.name, func(t *testing.T) { u.check(t, s.address, fmt.Sprintf("/%d", i)) })
			}
			t.Run("a closed port", func(t *testing.T) {
				refusingUpstream{status: 502}.check(t, s.address, "/closed")
			})
		})
	}
}

func (u refusingUpstream) check(t *testing.T, address, target string) {
	t.Helper()
	conn, err := wire.Dial(address, wire.Hello(address, target))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.Answer.StatusCode; got != u.status {
		t.Fatalf("the status is %d and should be %d", got, u.status)
	}
	for name, want := range u.header {
		if got := conn.Answer.Header.Get(name); got != want {
			t.Errorf("%s is %q and should be %q", name, got, want)
		}
	}
	body, err := io.ReadAll(conn.Answer.Body)
	if err != nil {
		t.Errorf("read the body: %v", err)
	}
	if u.body != "" && string(body) != u.body {
		t.Errorf("the body is %.100q and should be %.100q", body, u.body)
	}
	if u.status == 502 || u.status == 504 {
		if got := conn.Answer.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type is %q", got)
		}
	}
}

// TestClientHandshake sends malformed opening handshakes; each must get its
// status, and none may reach the upstream.
func TestClientHandshake(t *testing.T) {
	gate(t)
	good := wire.Hello("stent.example", "/ok")
	without := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	table := []struct {
		name, request string
		status        int
		header        string // that the answer must have, as "Name: value"
	}{
		{"no route", without("/ok", "/elsewhere"), 404, ""},
		{"no upgrade", without("Upgrade: websocket\r\n", ""), 426, "Upgrade: websocket"},
		{"another upgrade", without("Upgrade: websocket", "Upgrade: h2c"), 426, ""},
		{"no connection header", without("Connection: Upgrade\r\n", ""), 400, ""},
		{"version 8", without("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13"},
		{"no version", without("Sec-WebSocket-Version: 13\r\n", ""), 400, ""},
		{"POST", without("GET", "POST"), 405, "Allow: GET"},
		{"no key", without("Sec-WebSocket-Key", "X-Key"), 400, ""},
		{"short key", without("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, ""},
		{"key not base64", without("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!!!"), 400, ""},
		{"dot segments", without("/ok", "/ok/../ok"), 400, ""},
		{"encoded dot segments", without("/ok", "/ok/%2e%2e/ok"), 400, ""},
		{"encoded backslash", without("/ok", "/ok%5Cx"), 400, ""},
		{"encoded NUL", without("/ok", "/ok%00"), 400, ""},
		{"bad escape", without("/ok", "/ok%zz"), 400, ""},
		{"two hosts", without("\r\n\r\n", "\r\nHost: other.example\r\n\r\n"), 400, ""},
		{"no host", without("Host: stent.example\r\n", ""), 400, ""},
		{"space in a header's name", without("\r\n\r\n", "\r\nX Bad: 1\r\n\r\n"), 400, ""},
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ""},
		{"headers too large", without("\r\n\r\n", "\r\nX-Long: "+strings.Repeat("y", 40_000)+"\r\n\r\n"), 431, ""},
	}
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			up := listen(t, func(c *wire.Conn) {
				if err := c.Hear(); err == nil {
					t.Errorf("the upstream was asked for %s", c.Request.RequestURI)
				}
			})
			s := startStent(t, fmt.Sprintf("log: {level: error}\nroutes:\n  - path: /ok/*\n    upstream: app\n%supstreams: {app: {targets: [ws://%s]}}\n", w.mode(), up))
			for _, row := range table {
				t.Run(row.name, func(t *testing.T) {
					resp := ask(t, s.address, row.request)
					if resp.StatusCode != row.status {
						t.Errorf("the status is %d and should be %d", resp.StatusCode, row.status)
					}
					if name, want, ok := strings.Cut(row.header, ": "); ok && !strings.EqualFold(resp.Header.Get(name), want) {
						t.Errorf("%s is %q and should be %q", name, resp.Header.Get(name), want)
					}
				})
			}
		})
	}
}

// ask sends request and returns the answer's head.
func ask(t *testing.T, address, request string) *http.Response {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

// TestEarlyData: a client may send frames in one segment with its request, and
// a server with its answer; none is lost.
func TestEarlyData(t *testing.T) {
	gate(t)
	up := listen(t, func(c *wire.Conn) {
		if c.Hear() != nil {
			return
		}
		early := plain(text1("early 1"), text1("early 2"))
		_, _ = c.Write(early[1].Append(early[0].Append(c.Welcome())))
		for {
			f, err := c.Next()
			if err != nil || f.Op == wire.Close {
				return
			}
			_ = c.Send(plain(f)...)
		}
	})
	for _, w := range ways() {
		t.Run(string(w), func(t *testing.T) {
			front := w.front(t, up, "")
			var early []byte
			want := []string{`text "early 1"`, `text "early 2"`}
			for i := range 20 {
				early = text1(fmt.Sprint(i)).Append(early)
				want = append(want, fmt.Sprintf("text %q", fmt.Sprint(i)))
			}
			early = goodBy.Append(early)
			conn, err := wire.Dial(front, wire.Hello(front, "/"), early...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Mute = true // the close is sent already
			if got := conn.Rest(); !likes(append(want, "close 1000", "end"), got) {
				t.Errorf("the row is\n\t%q\nand should be\n\t%q", got, want)
			}
		})
	}
}
