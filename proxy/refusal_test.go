package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// refusal is a handshake that becomes no session.
type refusal struct {
	name     string
	route    string // keys of the route
	top      string // keys of the file
	handlers map[string]NewHandler
	// before plays what has to be so first.
	before  func(s *stage)
	request string
	// upstream plays the target that is dialled; nil where none may be.
	upstream func(up *wire)
	status   int
	header   map[string]string // fields of the answer
	// foreign is the body of an answer that is not ours; ours are problems.
	foreign string
	// limit is the label of limited_total that counts the answer.
	limit string
	// uncounted answers are no handshake's.
	uncounted bool
}

const oneDial = "upstreams: {app: {targets: [\"ws://TARGET\"], dial: {timeout: 10s, attempts: 1}}}"

// Rows "upstream refuses", "no route / not an upgrade / …", "auth / origin /
// limits", "all dials refused / no target / dial timeout".
var refusals = []refusal{
	{name: "no route", route: "host: other.test", request: handshake("/"), status: 404},
	{name: "plain request", request: request("GET / HTTP/1.1"), status: 426, uncounted: true,
		header: map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Version": "13"}},
	{name: "version 8", request: strings.Replace(handshake("/"), "Version: 13", "Version: 8", 1), status: 426,
		header: map[string]string{"Sec-Websocket-Version": "13"}},
	{name: "two versions", request: handshake("/", "Sec-WebSocket-Version: 8"), status: 400},
	{name: "no version", request: strings.Replace(handshake("/"), "Sec-WebSocket-Version: 13\r\n", "", 1), status: 400},
	{name: "plain POST", request: request("POST / HTTP/1.1", "Content-Length: 0"), status: 405, uncounted: true,
		header: map[string]string{"Allow": "GET"}},
	{name: "POST that asks for an upgrade", request: strings.Replace(handshake("/"), "GET", "POST", 1), status: 405,
		header: map[string]string{"Allow": "GET"}},
	{name: "another protocol", request: strings.Replace(handshake("/"), "websocket", "h2c", 1), status: 426, uncounted: true},
	{name: "no key", request: strings.Replace(handshake("/"), "Sec-WebSocket-Key", "X-Key", 1), status: 400},
	{name: "short key", request: strings.Replace(handshake("/"), "AAECAwQFBgcICQoLDA0ODw==", "AAECAw==", 1), status: 400},
	{name: "two keys", request: handshake("/", "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="), status: 400},
	{name: "no Connection", request: strings.Replace(handshake("/"), "Connection: Upgrade", "Connection: keep-alive", 1), status: 400},
	{name: "HTTP/1.0", request: strings.Replace(handshake("/"), "HTTP/1.1", "HTTP/1.0", 1), status: 400},
	{name: "a body", request: handshake("/", "Content-Length: 3") + "abc", status: 400},
	{name: "dot segments", request: handshake("/a/../b"), status: 400},
	{name: "encoded dot segments", request: handshake("/a/%2e%2E/b"), status: 400},
	{name: "backslash", request: handshake("/a%5Cb"), status: 400},
	{name: "zero byte", request: handshake("/a%00b"), status: 400},

	{name: "foreign origin", route: "pipe_through: [guard]", top: "pipelines: {guard: [{origin: [\"https://stent.test\"]}]}",
		request: handshake("/", "Origin: https://evil.test"), status: 403},
	{name: "limit plug", limit: "sessions_by_ip", route: "pipe_through: [guard]", top: "pipelines: {guard: [{limit: {sessions: 1, by: ip}}]}",
		before: (*stage).open, request: handshake("/"), status: 429, header: map[string]string{"Retry-After": "5"}},
	{name: "sessions_per_ip", limit: "sessions_per_ip", top: "limits: {sessions_per_ip: 1}",
		before: (*stage).open, request: handshake("/"), status: 429, header: map[string]string{"Retry-After": "5"}},
	{name: "sessions", limit: "sessions", top: "limits: {sessions: 1}",
		before: (*stage).open, request: handshake("/"), status: 503, header: map[string]string{"Retry-After": "5"}},
	{name: "handshakes_per_second", limit: "handshakes_per_second", top: "limits: {handshakes_per_second: 0.001}",
		before: (*stage).open, request: handshake("/"), status: 503, header: map[string]string{"Retry-After": "1"}},

	{name: "upstream's redirect", request: handshake("/"), status: 302, foreign: "there\n",
		upstream: func(up *wire) {
			up.say("HTTP/1.1 302 Found\r\nLocation: /there\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 6\r\nKeep-Alive: 5\r\n\r\nthere\n")
		},
		header: map[string]string{"Location": "/there", "Set-Cookie": "a=1|b=2", "Keep-Alive": ""}},
	{name: "upstream's 503", request: handshake("/"), status: 503, foreign: "later\n",
		upstream: func(up *wire) {
			up.say("HTTP/1.1 503 No\r\nRetry-After: 7\r\nConnection: close\r\n\r\nlater\n")
			up.halfClose()
		},
		header: map[string]string{"Retry-After": "7"}},
	{name: "upstream's 200", request: handshake("/"), status: 200, foreign: "a page",
		upstream: func(up *wire) { up.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na page") }},
	{name: "upstream's answer after an interim one", request: handshake("/"), status: 401, foreign: "",
		upstream: func(up *wire) {
			up.say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
		}},

	{name: "nobody listens", top: strings.Replace(oneDial, "TARGET", "127.0.0.1:9", 1), request: handshake("/"), status: 502},
	{name: "upstream hangs up", top: oneDial, request: handshake("/"), upstream: func(up *wire) { up.Close() }, status: 502},
	{name: "upstream resets", top: oneDial, request: handshake("/"), upstream: func(up *wire) { up.reset() }, status: 502},
	{name: "upstream speaks no HTTP", top: oneDial, request: handshake("/"), upstream: func(up *wire) { up.say("SSH-2.0-OpenSSH_9.2\r\n") }, status: 502},
	{name: "upstream's key is wrong", top: oneDial, request: handshake("/"), status: 502,
		upstream: func(up *wire) { up.request.Header.Set("Sec-Websocket-Key", "x"); up.say(up.switching()) }},
	{name: "upstream chooses what was not offered", top: oneDial, request: handshake("/"), status: 502,
		upstream: func(up *wire) { up.say(up.switching("Sec-WebSocket-Protocol: chat")) }},
	{name: "upstream's extension was not offered", top: oneDial, request: handshake("/"), status: 502,
		upstream: func(up *wire) { up.say(up.switching("Sec-WebSocket-Extensions: permessage-deflate")) }},
	{name: "upstream says nothing", top: strings.Replace(oneDial, "10s", "200ms", 1), request: handshake("/"),
		upstream: func(up *wire) {}, status: 504},
	{name: "target full", top: "upstreams: {app: {targets: [\"ws://TARGET\"], max_sessions: 1}}",
		before: (*stage).open, request: handshake("/"), status: 503},

	{name: "handler's own status", route: "handlers: [own]", request: handshake("/"), status: 418, foreign: "no coffee\n",
		handlers: made(func() Handler {
			return opener{err: &Refusal{Status: 418, Header: http.Header{"X-Why": {"teapot"}}, Body: "no coffee"}}
		}),
		header: map[string]string{"X-Why": "teapot"}},
	{name: "handler's error", route: "handlers: [own]", request: handshake("/"), status: 500,
		handlers: made(func() Handler { return opener{err: errors.New("secret")} })},
	{name: "handler's panic", route: "handlers: [own]", request: handshake("/"), status: 500,
		handlers: made(func() Handler { return opener{} })},
}

// opener refuses sessions; without an error it panics.
type opener struct {
	passAll
	err error
}

// Open implements Opener.
func (o opener) Open(*Session) error {
	if o.err == nil {
		panic("a handler's own fault")
	}
	return o.err
}

func TestRefusals(t *testing.T) {
	for _, row := range refusals {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.run(t)
		})
	}
}

func (r *refusal) run(t *testing.T) {
	handlers := r.handlers
	if handlers == nil {
		handlers = testHandlers
	}
	s := newStage(t, r.route, r.top, handlers)
	if r.before != nil {
		r.before(s)
	}
	c := s.dial()
	c.say(r.request)
	if r.upstream != nil {
		r.upstream(s.accept())
	}
	resp := c.status()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the body: %v", err)
	}
	if resp.StatusCode != r.status {
		t.Errorf("status %s, want %d: %s", resp.Status, r.status, body)
	}
	for name, want := range r.header {
		if got := strings.Join(resp.Header[name], "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if r.foreign != "" {
		if string(body) != r.foreign {
			t.Errorf("body %q, want %q", body, r.foreign)
		}
	} else if r.upstream == nil || r.status > 500 {
		checkProblem(t, resp, body)
	}
	if !r.uncounted {
		label := "/*"
		if r.status == http.StatusNotFound || strings.Contains(r.name, "segments") || r.name == "backslash" || r.name == "zero byte" {
			label = ""
		}
		key := fmt.Sprintf("stent_handshakes_refused_total{route=%s,status=%d}", label, r.status)
		if got := s.refusedCount(key); got != 1 {
			t.Errorf("%s is %v, want 1", key, got)
		}
	}
	if r.limit != "" {
		key := fmt.Sprintf("stent_limited_total{limit=%s,route=/*}", r.limit)
		if got := s.refusedCount(key); got != 1 {
			t.Errorf("%s is %v, want 1", key, got)
		}
	}
	if s.client == nil {
		s.over()
		s.checkBooks(t)
		return
	}
	// The session that was there first has not noticed.
	s.client.send(text("a"))
	s.upstream.expect("text a")
}

// refusedCount waits for a count that is made behind the answer.
func (s *stage) refusedCount(key string) float64 {
	for deadline := time.Now().Add(patience); ; {
		n := s.metrics()[key]
		if n != 0 || time.Now().After(deadline) {
			return n
		}
	}
}

// checkProblem checks an error of our own.
func checkProblem(t *testing.T, resp *http.Response, body []byte) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	var problem struct {
		Type, Title, Detail string
		Status              int
		RequestID           string `json:"request_id"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	if problem.Status != resp.StatusCode || problem.Title != http.StatusText(resp.StatusCode) || problem.Detail == "" {
		t.Errorf("problem %+v of %s", problem, resp.Status)
	}
	if id := resp.Header.Get("X-Request-Id"); id == "" || id != problem.RequestID {
		t.Errorf("request id %q in the body, %q in the header", problem.RequestID, id)
	}
	if strings.Contains(string(body), "secret") {
		t.Errorf("the body says too much: %s", body)
	}
}

// Who has one address of an IPv6 network has them all.
func TestSessionsPerIPOfNetworks(t *testing.T) {
	for _, tt := range []struct {
		first, second string
		admitted      bool
	}{
		{"192.0.2.1", "192.0.2.1", false},
		{"192.0.2.1", "192.0.2.2", true},
		{"192.0.2.1", "::ffff:192.0.2.1", false},
		{"2001:db8::1", "2001:db8::ffff:2", false},
		{"2001:db8::1", "2001:db8:0:1::1", true},
	} {
		a := newAdmission()
		a.set(config.Limits{SessionsPerIP: 1})
		first, second := &plug.Info{ClientIP: netip.MustParseAddr(tt.first)}, &plug.Info{ClientIP: netip.MustParseAddr(tt.second)}
		if problem := a.enter(first); problem != nil {
			t.Fatal(problem)
		}
		if problem := a.enter(second); (problem == nil) != tt.admitted {
			t.Errorf("%s after %s: got %v, want it admitted %v", tt.second, tt.first, problem, tt.admitted)
		}
		first.End()
		if problem := a.enter(&plug.Info{ClientIP: first.ClientIP}); problem != nil {
			t.Errorf("%s after its end: %v", tt.first, problem)
		}
	}
}

// A refusal's body goes to the client as it comes, in chunks or counted, and
// one that is cut does not look whole.
func TestRefusalIsStreamed(t *testing.T) {
	for _, tt := range []struct {
		name        string
		head        string
		part, rest  string
		want        string
		cut         bool
		wantLength  int64
		wantChunked bool
	}{
		{name: "counted", head: "Content-Length: 6", part: "fir", rest: "st\n", want: "first\n", wantLength: 6},
		{name: "chunked", head: "Transfer-Encoding: chunked", part: "3\r\nfir\r\n", rest: "3\r\nst\n\r\n0\r\n\r\n", want: "first\n", wantLength: -1, wantChunked: true},
		{name: "to the end of the connection", head: "Connection: close", part: "fir", rest: "st\n", want: "first\n", cut: true, wantLength: -1, wantChunked: true},
		{name: "counted and cut", head: "Content-Length: 6", part: "fir", rest: "s", cut: true, wantLength: 6},
		{name: "chunked and cut", head: "Transfer-Encoding: chunked", part: "3\r\nfir\r\n", rest: "3\r\ns", cut: true, wantLength: -1, wantChunked: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "", "", nil)
			c := s.dial()
			c.say(handshake("/"))
			up := s.accept()
			up.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"chat\"\r\n" + tt.head + "\r\n\r\n" + tt.part)
			resp := c.status()
			if resp.StatusCode != 401 || resp.Header.Get("Www-Authenticate") != `Basic realm="chat"` {
				t.Errorf("got %s with %v", resp.Status, resp.Header)
			}
			if resp.ContentLength != tt.wantLength || slices.Contains(resp.TransferEncoding, "chunked") != tt.wantChunked {
				t.Errorf("content length %d, transfer encoding %v", resp.ContentLength, resp.TransferEncoding)
			}
			first := make([]byte, 3)
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "fir" {
				t.Fatalf("first part %q, %v", first, err)
			}
			up.say(tt.rest)
			if tt.cut {
				up.halfClose()
			}
			rest, err := io.ReadAll(resp.Body)
			if tt.want == "" {
				if err == nil {
					t.Errorf("a cut body looks whole: %q", rest)
				}
			} else if err != nil || string(first)+string(rest) != tt.want {
				t.Errorf("got %q, %v", rest, err)
			}
			up.expect("fin")
			s.over()
			s.checkBooks(t)
		})
	}
}

// A client that takes nothing of a refusal does not hold the upstream.
func TestRefusalOfStalledReader(t *testing.T) {
	t.Parallel()
	s := newStage(t, "timeouts: {write: 100ms}", "", nil)
	s.dial().say(handshake("/"))
	up := s.accept()
	up.say("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n")
	up.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.Copy(up, patterned{}); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the upstream is held")
	}
	s.over()
}

// A client that leaves before its answer takes the dial with it.
func TestClientLeavesDuringDial(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave func(*wire)
	}{
		{"vanishes", func(c *wire) { c.Close() }},
		{"resets", func(c *wire) { c.reset() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "", "", nil)
			c := s.dial()
			c.say(handshake("/"))
			up := s.accept()
			tt.leave(c)
			up.expect("fin")
			s.over()
			s.checkBooks(t)
			key := "stent_handshakes_refused_total{route=/*,status=" + strconv.Itoa(statusClientClosed) + "}"
			if got := s.refusedCount(key); got != 1 {
				t.Errorf("%s is %v, want 1", key, got)
			}
		})
	}
}

// Attempts go to other targets before a client is refused.
func TestDialAttempts(t *testing.T) {
	s := newStage(t, "", "upstreams: {app: {targets: [\"ws://127.0.0.1:9\", \"ws://TARGET\"], balance: round_robin, dial: {timeout: 5s, attempts: 2}}}", nil)
	for range 2 { // whichever target comes first
		s.open()
		if got := s.upstream.request.Header.Get("Stent-Attempt"); got != "1" {
			t.Errorf("attempt %s", got)
		}
		s.client.send(closing(1000, ""))
		s.upstream.expect("close 1000", "fin")
		s.client.expect("close 1000", "fin")
	}
}
