package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// poller is a long-poll client without any cleverness.
type poller struct {
	t     *testing.T
	base  string // URL of the endpoint
	query string
	token string
	// header goes with each request.
	header http.Header
}

// polled is what a request got.
type polled struct {
	HTTP     int `json:"-"`
	Header   http.Header
	Status   int      `json:"status"`
	Token    string   `json:"token"`
	Messages []string `json:"messages"`
}

func (s *stage) poller() *poller {
	return &poller{t: s.t, base: "http://" + s.proxy.Addrs()[0].String() + "/socket/longpoll", query: "vsn=2.0.0", header: http.Header{}}
}

func (p *poller) url() string {
	token := p.token
	if token == "" {
		token = "null" // as phoenix.js does
	}
	return p.base + "?" + p.query + "&token=" + url.QueryEscape(token)
}

// do makes a request. It may be called from any goroutine.
func (p *poller) do(method, contentType, body string) polled {
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url(), strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return polled{}
	}
	for name, values := range p.header {
		r.Header[name] = values
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := pollClient.Do(r)
	if err != nil {
		p.t.Errorf("%s: %v", method, err)
		return polled{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Errorf("%s: %v", method, err)
	}
	out := polled{HTTP: resp.StatusCode, Header: resp.Header}
	if method == http.MethodOptions {
		return out
	}
	if err := json.Unmarshal(b, &out); err != nil {
		p.t.Errorf("%s is answered %q: %v", method, b, err)
	}
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		p.t.Errorf("%s: Access-Control-Allow-Origin %q", method, got)
	}
	return out
}

// pollClient keeps no connections: what is left of one would be a leak.
var pollClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * patience}

func (p *poller) get() polled { return p.do(http.MethodGet, "", "") }

// want compares what a request got.
func (p *poller) want(got polled, status int, messages ...string) {
	p.t.Helper()
	if got.Status != status || got.HTTP != http.StatusOK || !slices.Equal(got.Messages, messages) {
		p.t.Fatalf("got status %d (%d) and messages %q, want %d and %q", got.Status, got.HTTP, got.Messages, status, messages)
	}
}

// openPoll connects a long-poll client with an upstream.
func (s *stage) openPoll() *poller {
	s.t.Helper()
	p := s.poller()
	s.openPollAs(p)
	return p
}

func (s *stage) openPollAs(p *poller) {
	s.t.Helper()
	opened := make(chan polled, 1)
	go func() { opened <- p.get() }()
	s.next()
	got := <-opened
	if got.Status != http.StatusGone || got.HTTP != http.StatusOK || got.Token == "" || got.Messages == nil || len(got.Messages) > 0 {
		s.t.Fatalf("a session opens with %+v", got)
	}
	p.token = got.Token
}

const pollRoute = "longpoll: true\ntimeouts: {close: 500ms}"

// The whole exchange, in any mode that a route may have.
func TestLongPoll(t *testing.T) {
	for _, m := range []mode{inRelay, inMessage, {name: "terminate", route: "compression: terminate"}} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, pollRoute, "", testHandlers)
			p := s.openPoll()
			if got := s.upstream.request.RequestURI; got != "/socket/websocket?vsn=2.0.0" {
				t.Errorf("upstream is asked for %q", got)
			}
			p.want(p.do("POST", "application/json", `["1","1","room:a","phx_join",{}]`), 200)
			s.upstream.expect(`text ["1","1","room:a","phx_join",{}]`)
			p.want(p.do("POST", "application/x-ndjson", "[\"a\"]\n[\"b\"]\r\n{\"c\":1}\n"), 200)
			s.upstream.expect(`text ["a"]`, `text ["b"]`, `text {"c":1}`)
			p.want(p.do("POST", "application/x-ndjson", base64.StdEncoding.EncodeToString([]byte("\x00bin"))+"\n[1]"), 200)
			s.upstream.expect("binary \x00bin", "text [1]")
			p.want(p.do("POST", "", strings.Repeat("x", 300<<10)), 200)
			s.upstream.expect(fmt.Sprintf("text %dB", 300<<10))

			s.upstream.send(text("one"), first("tw"), last("o"))
			for got := []string{}; len(got) < 2; {
				r := p.get()
				if got = append(got, r.Messages...); r.Status != 200 || r.Token != p.token || !slices.Equal(got, []string{"one", "two"}[:len(got)]) {
					t.Fatalf("got %+v", r)
				}
			}
			waiting := make(chan polled)
			go func() { waiting <- p.get() }()
			s.upstream.send(sent{h: text("").h, payload: []byte(`"quoted" ü`)})
			p.want(<-waiting, 200, `"quoted" ü`)
			b := binary(3)
			s.upstream.send(b)
			p.want(p.get(), 200, "AAAA")

			info := s.session().Info()
			if info.State != Open || info.Remote != "127.0.0.1" || info.Client.Messages != 7 || info.UpstreamSide.Messages != 4 {
				t.Errorf("session is shown as %+v", info)
			}
			if m.name == inRelay.name && info.Mode != modeRelay {
				t.Errorf("mode %s", info.Mode)
			}
			s.upstream.send(closing(1000, "bye"))
			p.want(p.get(), 500)
			s.over()
			p.want(p.do("POST", "", "x"), 410)
		})
	}
}

// What is in the handshake that goes up.
func TestLongPollHandshake(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.poller()
	p.query = "token=mine&vsn=2.0.0&x=%zz;1"
	p.header = http.Header{"Cookie": {"a=1"}, "X-Own": {"x"}, "X-Phoenix-Authtoken": {"secret?"}, "Origin": {"http://a.test"}}
	answer := make(chan polled, 1)
	go func() { answer <- p.get() }()
	up := s.accept()
	if got := up.request.RequestURI; got != "/socket/websocket?token=mine&vsn=2.0.0&x=%zz;1" {
		t.Errorf("asked for %q", got)
	}
	for name, want := range map[string]string{
		"Cookie": "a=1", "X-Own": "x", "Origin": "http://a.test", "Upgrade": "websocket", "Content-Length": "",
		"Sec-Websocket-Protocol": "phoenix, base64url.bearer.phx." + base64.RawURLEncoding.EncodeToString([]byte("secret?")),
		"X-Phoenix-Authtoken":    "", "X-Forwarded-For": "127.0.0.1", "Sec-Websocket-Extensions": "",
	} {
		if got := strings.Join(up.request.Header[name], "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	up.say(up.switching("Sec-WebSocket-Protocol: phoenix"))
	if got := <-answer; got.Status != 410 {
		t.Errorf("got %+v", got)
	}
	if got := s.session().Subprotocol(); got != "phoenix" {
		t.Errorf("subprotocol %q", got)
	}
}

// The header of the upstream's answer reaches the client.
func TestLongPollAnswerHeader(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.poller()
	answer := make(chan polled, 1)
	go func() { answer <- p.get() }()
	up := s.accept()
	up.say(up.switching("Set-Cookie: a=1", "X-Own: x"))
	got := <-answer
	for name, want := range map[string]string{
		"Set-Cookie": "a=1", "X-Own": "x", "Upgrade": "", "Sec-Websocket-Accept": "", "Cache-Control": "no-store",
		"Content-Type": "application/json; charset=utf-8",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// A poll without news ends with its window; the next one goes on.
func TestLongPollWindow(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.openPoll()
	s.proxy.polls.SetWindow(50*time.Millisecond, time.Minute)
	got := p.get()
	p.want(got, 204)
	if got.Token != p.token {
		t.Errorf("token %q, want %q", got.Token, p.token)
	}
	if got.Header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
	s.proxy.polls.SetWindow(time.Minute, time.Minute)
	s.upstream.send(text("late"))
	p.want(p.get(), 200, "late")
}

// A backend hears of a client that only listens, which sends no heartbeats.
func TestLongPollPings(t *testing.T) {
	for _, m := range []mode{inRelay, inMessage} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, pollRoute, "", testHandlers)
			p := s.openPoll()
			s.proxy.polls.SetWindow(100*time.Millisecond, time.Minute)
			heard := make(chan string, 1)
			go func() { heard <- s.upstream.next() }()
			for {
				select {
				case got := <-heard:
					if got != "ping" {
						t.Errorf("got %s", got)
					}
					return
				default:
					p.want(p.get(), 204)
				}
			}
		})
	}
}

// A client that stays away is one that has vanished.
func TestLongPollClientGone(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	s.proxy.polls.SetWindow(time.Minute, 50*time.Millisecond)
	p := s.openPoll()
	s.upstream.expect("close 1001", "fin")
	s.over()
	s.proxy.polls.SetWindow(time.Minute, time.Minute)
	p.want(p.do("POST", "", "x"), 410)
	old := p.token
	s.openPollAs(p) // with the stale token: a new session
	if p.token == old {
		t.Error("the token is the old one")
	}
}

// Tokens that are none of this proxy's, or of another route's session, open a
// session.
func TestLongPollWrongToken(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.openPoll()
	mine := p.token
	for name, token := range map[string]string{
		"other MAC":     mine[:len(mine)-3] + "AAA",
		"other key":     mine[:12] + "QQ" + mine[14:],
		"no MAC":        mine[:strings.LastIndex(mine, ".")],
		"not of a kind": "SFMyNTY.g2gDaAJhAnQ",
	} {
		t.Run(name, func(t *testing.T) {
			other := s.poller()
			other.t = t
			other.token = token
			other.want(other.do("POST", "", "x"), 410)
			s.openPollAs(other)
			if other.token == token || other.token == mine {
				t.Errorf("token %q", other.token)
			}
		})
	}
}

// The end of a session is told so that its client opens another: the codes
// are those that phoenix.js knows.
func TestLongPollEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		route string
		end   func(s *stage)
		want  int
		up    []string
	}{
		{name: "kick", end: func(s *stage) { s.session().Close(0, "out") }, want: 403, up: []string{"close 1001", "fin"}},
		{name: "kick with a code", end: func(s *stage) { s.session().Close(4000, "out") }, want: 500, up: []string{"close 1001", "fin"}},
		{name: "drain", end: func(s *stage) { s.stop() }, want: 500, up: []string{"close 1001", "fin"}},
		{name: "upstream closes", end: func(s *stage) { s.upstream.send(closing(1008, "no")) }, want: 403},
		{name: "upstream lost", end: func(s *stage) { s.upstream.reset() }, want: 500},
		{name: "hold expired", route: "continuity: {hold: 20ms}", end: func(s *stage) { s.refuse(); s.upstream.reset() }, want: 500},
		{name: "message of the upstream too big", route: "limits: {message_size: 100B}", end: func(s *stage) { s.upstream.send(binary(101)) }, want: 500},
	} {
		for _, when := range []string{"waiting", "away"} {
			t.Run(tt.name+", client "+when, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, lines(pollRoute, tt.route), "", nil)
				p := s.openPoll()
				got := make(chan polled, 1)
				if when == "waiting" {
					go func() { got <- p.get() }()
					p.await(s, 1)
					tt.end(s)
					p.want(<-got, tt.want)
				} else if tt.name != "drain" { // there is no door to come back to
					tt.end(s)
					p.want(p.get(), tt.want)
				} else {
					tt.end(s)
				}
				if tt.up != nil {
					s.upstream.expect(tt.up...)
				}
				s.over()
				if tt.name == "drain" {
					return
				}
				p.want(p.do("POST", "", "x"), 410)
			})
		}
	}
}

// await waits until n polls wait.
func (p *poller) await(s *stage, n int) {
	p.t.Helper()
	deadline := time.After(patience)
	for s.proxy.polls.Load().Waiting != n {
		select {
		case <-deadline:
			p.t.Fatalf("%d polls wait, want %d", s.proxy.polls.Load().Waiting, n)
		case <-time.After(time.Millisecond):
		}
	}
}

// With continuity a long-poll client notices no more of a lost upstream than
// any other.
func TestLongPollContinuity(t *testing.T) {
	t.Parallel()
	s := newStage(t, lines(pollRoute, "continuity: {backoff: {min: 1ms, max: 1ms}}"), "", nil)
	p := s.openPoll()
	s.upstream.send(text("before"))
	p.want(p.get(), 200, "before")
	s.upstream.reset()
	p.want(p.do("POST", "", "held"), 200)
	s.next()
	s.upstream.expect("text held")
	s.upstream.send(text("after"))
	p.want(p.get(), 200, "after")
	if got := s.session().Info(); got.Restarts != 1 {
		t.Errorf("%d restarts", got.Restarts)
	}
}

// A session that is refused, by whomever, is told in a form that phoenix.js
// retries after.
func TestLongPollRefused(t *testing.T) {
	upstreamSays := func(answer string) func(*stage) {
		return func(s *stage) { s.accept().say(answer) }
	}
	pipelines := func(plugs string) string { return "pipelines: {p: [" + plugs + "]}\npipe_through: [p]" }
	for _, tt := range []struct {
		name     string
		top      string
		upstream func(*stage)
		header   http.Header
		http     int
		status   int
		refused  int
	}{
		{name: "upstream 403", upstream: upstreamSays("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), http: 200, status: 403, refused: 403},
		{name: "upstream 401", upstream: upstreamSays("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"), http: 200, status: 403, refused: 401},
		{name: "upstream 404", upstream: upstreamSays("HTTP/1.1 404 Not Found\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno"), http: 404, status: 500, refused: 404},
		{name: "upstream 500", upstream: upstreamSays("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), http: 500, status: 500, refused: 500},
		{name: "upstream away", top: `upstreams: {app: {targets: ["ws://127.0.0.1:1"], dial: {attempts: 1}}}`, http: 502, status: 500, refused: 502},
		{name: "origin", top: pipelines(`{origin: ["https://good.test"]}`), header: http.Header{"Origin": {"https://evil.test"}}, http: 200, status: 403, refused: 403},
		{name: "token", top: pipelines(`{jwt: {secret: "01234567890123456789012345678901", algorithms: [HS256], from: [protocol]}}`), http: 200, status: 403, refused: 401},
		{name: "limit", top: "limits: {sessions: 1, handshakes_per_second: 1}", http: 503, status: 500, refused: 503,
			upstream: func(s *stage) { s.openPoll() }},
		{name: "before routing", top: `endpoint: [{ip: {deny: ["127.0.0.1/32"]}}]`, http: 200, status: 403, refused: 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, pollRoute, tt.top, nil)
			p := s.poller()
			p.header = tt.header
			if tt.name == "limit" {
				tt.upstream(s)
				tt.upstream = nil
			}
			got := make(chan polled, 1)
			go func() { got <- p.get() }()
			if tt.upstream != nil {
				tt.upstream(s)
			}
			r := <-got
			if r.HTTP != tt.http || r.Status != tt.status || r.Token != "" {
				t.Errorf("got HTTP %d, status %d, want %d, %d", r.HTTP, r.Status, tt.http, tt.status)
			}
			for _, name := range []string{"Www-Authenticate", "Content-Encoding"} {
				if v := r.Header.Get(name); v != "" {
					t.Errorf("%s: %s", name, v)
				}
			}
			if tt.name == "limit" {
				if r.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				return
			}
			route := "/*"
			if tt.name == "before routing" {
				route = ""
			}
			key := fmt.Sprintf("stent_handshakes_refused_total{route=%s,status=%d}", route, tt.refused)
			if n := s.refusedCount(key); n != 1 {
				t.Errorf("%s is %v", key, n)
			}
		})
	}
}

// Requests that are no good are answered in a form that can be read, and
// change nothing.
func TestLongPollBadRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.openPoll()
	for _, tt := range []struct {
		method, contentType, body string
		http                      int
	}{
		{"POST", "application/x-ndjson", "[1]\n!!\n[2]", 400},
		{"POST", "application/x-ndjson", "[\"\xff\"]", 400},
		{"POST", "application/x-ndjson", "\n\r\n", 400},
		{"POST", "text/plain", "\xff", 400},
		{"POST", "", "", 400},
		{"POST", "", strings.Repeat("x", maxPollBody+1), 413},
		{"PUT", "", "x", 405},
		{"DELETE", "", "", 405},
	} {
		if got := p.do(tt.method, tt.contentType, tt.body); got.HTTP != tt.http || got.Status != 500 {
			t.Errorf("%s %s %.10q: got HTTP %d, status %d, want %d, 500", tt.method, tt.contentType, tt.body, got.HTTP, got.Status, tt.http)
		}
	}
	p.want(p.do("POST", "", "good"), 200)
	s.upstream.expect("text good")
}

// CORS: a preflight carries no credentials, so no plug is asked.
func TestLongPollPreflight(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "pipelines: {p: [{basic_auth: {users: {ann: \"$$2a$$04$$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}}}]}\npipe_through: [p]", nil)
	p := s.poller()
	p.header = http.Header{"Origin": {"https://a.test"}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type,x-phoenix-authtoken"}}
	got := p.do("OPTIONS", "", "")
	if got.HTTP != 200 {
		t.Errorf("status %d", got.HTTP)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
		"Access-Control-Allow-Headers": "content-type,x-phoenix-authtoken", "Access-Control-Max-Age": "3600",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	p.header = http.Header{}
	if got := p.get(); got.Status != 403 {
		t.Errorf("without a password: %+v", got)
	}
}

// An auth token of phoenix.js is found where a WebSocket's is, and is taken
// out in both its forms.
func TestLongPollAuthToken(t *testing.T) {
	for _, from := range []string{"protocol", "header:X-Phoenix-AuthToken", "query:token"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, pollRoute, fmt.Sprintf("pipelines: {p: [{jwt: {secret: %q, algorithms: [HS256], from: [%q], id: \"user_socket:{sub}\", remove_token: true}}, {limit: {sessions: 1, by: id}}]}\npipe_through: [p]", tokentest.Secret, from), nil)
			token := tokentest.HS256(t, tokentest.Claims{"sub": "42", "exp": time.Now().Add(time.Hour).Unix()})
			p := s.poller()
			if from == "query:token" {
				p.query += "&token=" + token
			} else {
				p.header.Set("X-Phoenix-AuthToken", token)
			}
			s.openPollAs(p)
			if got := s.session().ID(); got != "user_socket:42" {
				t.Errorf("id %q", got)
			}
			up := s.upstream.request
			if whole := fmt.Sprint(up.RequestURI, up.Header); strings.Contains(whole, token) || strings.Contains(whole, "base64url.bearer") {
				t.Errorf("the token goes up: %s", whole)
			}
			p.header = http.Header{} // phoenix.js sends it with polls only
			p.want(p.do("POST", "", "x"), 200)
			s.upstream.expect("text x")
		})
	}
}

// A long-poll path does not lead around the pipelines of its WebSocket.
func TestLongPollStepsAside(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	s.run(fmt.Sprintf("pipelines: {p: [{basic_auth: {users: {ann: \"$$2a$$04$$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}}}]}\n"+
		"routes:\n  - {path: /socket/websocket, upstream: app, pipe_through: [p]}\n  - {path: /*, upstream: app, longpoll: true}\n"+
		"upstreams: {app: {targets: [%q]}}\n", "ws://"+s.targets.Addr().String()), nil)
	for _, path := range []string{"/socket/longpoll", "/socket;x/longpoll", "/%2Fsocket/longpoll", "//socket/longpoll"} {
		p := s.poller()
		p.base = strings.Replace(p.base, "/socket/longpoll", path, 1)
		if got := p.get(); got.HTTP != 400 || got.Status != 500 {
			t.Errorf("%s: got %+v", path, got)
		}
	}
}

// Without long poll its path is like any other.
func TestLongPollOff(t *testing.T) {
	t.Parallel()
	s := newStage(t, "", "", nil)
	c := s.dial()
	c.say(request("GET /socket/longpoll?token=null HTTP/1.1"))
	if resp := c.status(); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("status %s", resp.Status)
	}
}

// A backend's own long poll is not reached by plain requests where messages are
// judged, however its path is spelled: they would not be.
func TestLongPollIsNotProxiedAround(t *testing.T) {
	const rules = `topics: [{match: "room:lobby", allow: true}]`
	spellings := []string{"/socket/longpoll/", "/socket/longpoll//", "/socket/long%70oll", "/socket/long%70oll/", "/socket//longpoll/",
		"/socket/longpoll;x", "/socket;x/longpoll;y/", "/socket%2Flongpoll", "/socket/longpoll%2F", "/longpoll/"}
	all := append([]string{"/socket/longpoll", "/longpoll", "/socket//longpoll"}, spellings...)
	for _, tt := range []struct {
		name  string
		route string
		// refused are paths that are, and proxied others that are not.
		refused, proxied []string
		judge            string
	}{
		{"topics", lines(channeled, rules), all, []string{"/", "/longpoll/x", "/socket/longpolls", "/socket/xlongpoll", "/x?/longpoll", "/x%3F/longpollx"}, "topics"},
		{"topics, with long poll", lines(channeled, rules, "longpoll: true"), spellings, []string{"/x"}, "topics"},
		{"handlers", "handlers: [pass]", all, []string{"/x"}, "handlers"},
		{"handlers, with long poll", "handlers: [pass]\nlongpoll: true", spellings, nil, "handlers"},
		{"limits of channels", lines(channeled, "limits: {messages_per_second: 9}"), all, nil, "limits"},
		{"nothing", "", nil, all, ""},
		{"limits of frames", "limits: {messages_per_second: 9}", nil, all, ""},
		{"channels alone", channeled, nil, all, ""},
		{"channels alone, with long poll", lines(channeled, "longpoll: true"), nil, spellings, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "reached "+r.RequestURI) }))
			t.Cleanup(backend.Close)
			s := newStage(t, lines("http: true", tt.route), fmt.Sprintf("upstreams: {app: {targets: [%q]}}", backend.URL), testHandlers)
			door := "http://" + s.proxy.Addrs()[0].String()
			for _, path := range tt.refused {
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					p := s.poller()
					p.base = door + path
					if got := p.do(method, "application/x-ndjson", phxJoin("1", "room:secret")); got.HTTP != http.StatusOK || got.Status != http.StatusForbidden {
						t.Errorf("%s %s: got HTTP %d, status %d, want 200, 403", method, path, got.HTTP, got.Status)
					}
				}
			}
			for _, path := range tt.proxied {
				resp, err := pollClient.Post(door+path, "application/x-ndjson", strings.NewReader("[]"))
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if got, want := string(b), "reached "+path; got != want {
					t.Errorf("POST %s: got %q, want %q", path, got, want)
				}
			}
			var judges []any
			for _, line := range s.log.FilterMessageSnippet("long poll not proxied").FilterLevelExact(zap.WarnLevel).All() {
				judges = append(judges, line.ContextMap()["judge"])
			}
			if want := tt.judge; want == "" && len(judges) > 0 || want != "" && (len(judges) != 1 || judges[0] != want) {
				t.Errorf("the log names %v, want %q once", judges, want)
			}
		})
	}
}

// Where the route has long poll, its own path is served whatever else is.
func TestLongPollBesideHTTP(t *testing.T) {
	t.Parallel()
	s := newStage(t, lines("http: true", channeled, `topics: [{match: "room:lobby", allow: true}]`, pollRoute), "", nil)
	p := s.openPoll()
	p.want(p.do("POST", "application/x-ndjson", phxJoin("1", "room:secret")), 200)
	p.want(p.get(), 200, phxRefused("1", "1", "room:secret", "unauthorized"))
}

// A message above the limit ends the session, as any other's.
func TestLongPollMessageSize(t *testing.T) {
	for _, m := range []mode{inRelay, inMessage} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, lines(pollRoute, "limits: {message_size: 10B}"), "", testHandlers)
			p := s.openPoll()
			p.want(p.do("POST", "application/x-ndjson", "[12345678]\n[123456789]"), 200)
			s.upstream.expect("text [12345678]", "close 1001")
			p.want(p.get(), 500)
			s.over()
			if got := s.closed()["code"]; got != int64(1009) {
				t.Errorf("closed with %v", got)
			}
		})
	}
}

// A client that does not poll stops its upstream, and all that was sent comes.
func TestLongPollBackpressure(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.openPoll()
	const n, size = 100, 256 << 10
	var writing sync.WaitGroup
	t.Cleanup(writing.Wait)
	up := s.upstream
	writing.Go(func() {
		for i := range n {
			up.SetWriteDeadline(time.Now().Add(3 * patience))
			if _, err := up.Write(up.encode(sent{h: text("").h, payload: bytes.Repeat([]byte{byte('a' + i%26)}, size)})); err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
		}
	})
	for got := 0; got < n; {
		for deadline := time.Now().Add(patience); s.proxy.polls.Load().Queued == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nothing comes after %d messages", got)
			}
		}
		if got := s.proxy.polls.Load().Queued; got > size {
			t.Fatalf("%d bytes are queued", got)
		}
		r := p.get()
		if r.Status != 200 || len(r.Messages) != 1 {
			t.Fatalf("status %d and %d messages after %d", r.Status, len(r.Messages), got)
		}
		if m := r.Messages[0]; len(m) != size || m[0] != byte('a'+got%26) {
			t.Fatalf("message %d is %d bytes of %c", got, len(m), m[0])
		}
		got++
	}
}

// A session that takes nothing is a timeout for a POST.
func TestLongPollTimeout(t *testing.T) {
	t.Parallel()
	s := newStage(t, pollRoute, "", nil)
	p := s.openPoll()
	s.proxy.polls.SetWindow(100*time.Millisecond, time.Minute)
	body := strings.Repeat("x", 4<<20)
	var got polled
	for range 100 {
		if got = p.do("POST", "", body); got.Status != 200 {
			break
		}
	}
	p.want(got, 408)
}

// Many sessions come, talk and end, and nothing is left of them.
func TestLongPollManySessions(t *testing.T) {
	n := 1000
	if testing.Short() || raceDetector {
		n = 200
	}
	handlers := only(func(_ *Session, m Message) Result { return ReplyText("re " + string(m.Data)) })
	s := &stage{t: t}
	s.run("routes: [{path: /*, upstream: none, handlers: [own], longpoll: true, log: off}]", handlers)
	before := openFiles(t)
	pollers := make([]*poller, n)
	each := func(f func(i int, p *poller)) {
		var all sync.WaitGroup
		turns := make(chan struct{}, 50)
		for i := range n {
			turns <- struct{}{}
			all.Go(func() {
				defer func() { <-turns }()
				f(i, pollers[i])
			})
		}
		all.Wait()
	}
	for i := range pollers {
		pollers[i] = s.poller()
	}
	each(func(_ int, p *poller) { p.token = p.get().Token })
	if got := len(s.proxy.Sessions()); got != n {
		t.Fatalf("%d sessions, want %d", got, n)
	}
	each(func(i int, p *poller) {
		if got := p.do("POST", "", fmt.Sprint(i)); got.Status != 200 {
			t.Errorf("POST: %+v", got)
		}
		if got := p.get(); got.Status != 200 || !slices.Equal(got.Messages, []string{fmt.Sprint("re ", i)}) {
			t.Errorf("GET: %+v", got)
		}
	})
	for _, session := range s.proxy.Sessions() {
		session.Close(0, "")
	}
	s.over()
	each(func(_ int, p *poller) {
		if got := p.get(); got.Status != 403 {
			t.Errorf("after the end: %+v", got)
		}
	})
	if got := s.proxy.polls.Load().Sessions; got != 0 {
		t.Errorf("%d sessions are remembered", got)
	}
	deadline := time.Now().Add(patience)
	for openFiles(t) > before+20 {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are open, %d before", openFiles(t), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openFiles counts the descriptors of this process, or is 0 where the system
// does not tell.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
