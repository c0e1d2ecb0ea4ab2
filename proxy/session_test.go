package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/relay"
)

// What the upstream is asked, byte for byte where that is promised.
func TestRequestThatGoesUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		route  string
		top    string
		target string
		header []string
		uri    string
		// up are header fields at the upstream, "" where there must be none.
		up map[string]string
	}{
		{name: "semicolons and odd escapes", target: "/a%2Fb//c?x=1;y=2&z=%zz&q=a+b%20c", uri: "/a%2Fb//c?x=1;y=2&z=%zz&q=a+b%20c"},
		{name: "empty query", target: "/a?", uri: "/a?"},
		{name: "values unchanged", target: "/", uri: "/",
			header: []string{"Cookie: a=1; b=\"2\"", "X-Odd:   spaced  out ", "x-lower: kept"},
			up:     map[string]string{"Cookie": "a=1; b=\"2\"", "X-Odd": "spaced  out", "X-Lower": "kept"}},
		{name: "forged", target: "/", uri: "/",
			header: []string{"Stent-Session: mine", "Stent-Attempt: 9", "Stent-Anything: x", "X-Forwarded-For: 1.2.3.4",
				"X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Request-Id: mine"},
			up: map[string]string{"Stent-Attempt": "1", "Stent-Anything": "", "X-Forwarded-For": "127.0.0.1",
				"X-Forwarded-Proto": "http", "X-Forwarded-Host": "stent.test", "X-Real-Ip": "", "Forwarded": ""}},
		{name: "hop by hop", target: "/", uri: "/",
			header: []string{"Connection: X-Hop", "X-Hop: gone", "Keep-Alive: 5", "Te: trailers", "Proxy-Authorization: x"},
			up:     map[string]string{"X-Hop": "", "Keep-Alive": "", "Te": "", "Proxy-Authorization": ""}},
		{name: "extensions of the client are offered", target: "/", uri: "/",
			header: []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-own", "Sec-WebSocket-Protocol: one, two"},
			up: map[string]string{"Sec-Websocket-Extensions": "permessage-deflate; client_max_window_bits, x-own",
				"Sec-Websocket-Protocol": "one, two"}},
		{name: "with continuity only what survives", route: "continuity: {}", target: "/", uri: "/",
			header: []string{"Sec-WebSocket-Extensions: x-own, permessage-deflate; client_max_window_bits"},
			up:     map[string]string{"Sec-Websocket-Extensions": noContext}},
		{name: "no extension where messages are read", route: "handlers: [pass]", target: "/", uri: "/",
			header: []string{"Sec-WebSocket-Extensions: permessage-deflate"},
			up:     map[string]string{"Sec-Websocket-Extensions": ""}},
		{name: "stent's own offer where it terminates", route: "compression: terminate", target: "/", uri: "/",
			up: map[string]string{"Sec-Websocket-Extensions": noContext}},
		{name: "prefix of the target", top: "upstreams: {app: {targets: [\"ws://TARGET/base\"]}}", target: "/a?b", uri: "/base/a?b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, tt.route, tt.top, testHandlers)
			c := s.dial()
			c.say(handshake(tt.target, tt.header...))
			up := s.accept()
			if up.request.RequestURI != tt.uri {
				t.Errorf("asked for %q, want %q", up.request.RequestURI, tt.uri)
			}
			if up.request.Host != "stent.test" {
				t.Errorf("host %q", up.request.Host)
			}
			for name, want := range tt.up {
				if got := strings.Join(up.request.Header[name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if key := up.request.Header.Get("Sec-WebSocket-Key"); key == "AAECAwQFBgcICQoLDA0ODw==" || key == "" {
				t.Errorf("key %q is not stent's own", key)
			}
			if got, want := up.request.Header.Get("Stent-Session"), s.session().Key(); got != want {
				t.Errorf("session %q, want %q", got, want)
			}
			if id := up.request.Header.Get("X-Request-Id"); id == "" || id == "mine" {
				t.Errorf("request id %q", id)
			}
		})
	}
}

// The client's 101 is the upstream's, but for what concerns its own leg.
func TestAnswerThatComesDown(t *testing.T) {
	for _, m := range anyMode {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m := negotiated(m)
			s := m.stage(t, "", "", testHandlers)
			c := s.dial()
			c.say(handshake("/", m.offer...))
			up := s.accept()
			up.say(up.switching(append(m.agree, "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Own: x", "Keep-Alive: 5")...))
			resp := c.status()
			sum := sha1.Sum([]byte("AAECAwQFBgcICQoLDA0ODw==" + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			want := map[string]string{
				"Sec-Websocket-Accept": base64.StdEncoding.EncodeToString(sum[:]), "Sec-Websocket-Protocol": "one",
				"Set-Cookie": "a=1|b=2", "X-Own": "x", "Keep-Alive": "", "Upgrade": "websocket", "Connection": "Upgrade",
				"Sec-Websocket-Extensions": "",
			}
			if m.name == inDeflate.name {
				want["Sec-Websocket-Extensions"] = noContext
			}
			for name, want := range want {
				if got := strings.Join(resp.Header[name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			c.send(text("a"))
			up.expect("text a")
			if got := s.session().Subprotocol(); got != "one" {
				t.Errorf("subprotocol %q", got)
			}
		})
	}
}

// Where messages are dropped each is compressed by itself: the others stay
// what they were.
func TestDropBesideCompression(t *testing.T) {
	for onLimit, want := range map[string]string{"drop": noContext, "slow": "permessage-deflate; client_max_window_bits"} {
		t.Run(onLimit, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, "limits: {messages_per_second: 5, on_limit: "+onLimit+"}", "", nil)
			s.offer = []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"}
			s.agree = []string{"Sec-WebSocket-Extensions: " + want}
			s.open()
			if got := s.upstream.request.Header.Get("Sec-WebSocket-Extensions"); got != want {
				t.Errorf("offers %q, want %q", got, want)
			}
		})
	}
}

// A further upstream is asked for what the client was told, and knows by the
// session and the attempt whom it gets.
func TestRequestOfARedial(t *testing.T) {
	for _, tt := range []struct {
		name          string
		offer, agree  []string
		subprotocol   string
		extensions    string
		reextensions  string
		resubprotocol string
	}{
		{name: "nothing agreed", offer: []string{"Sec-WebSocket-Protocol: one, two", "Sec-WebSocket-Extensions: permessage-deflate"},
			subprotocol: "one, two", extensions: noContext},
		{name: "agreed", offer: []string{"Sec-WebSocket-Protocol: one, two", "Sec-WebSocket-Extensions: permessage-deflate"},
			agree:       []string{"Sec-WebSocket-Protocol: two", "Sec-WebSocket-Extensions: " + noContext},
			subprotocol: "one, two", extensions: noContext, resubprotocol: "two", reextensions: noContext},
		{name: "a token beside it", offer: []string{"Sec-WebSocket-Protocol: phoenix, one", "Sec-WebSocket-Protocol: base64url.bearer.phx.dG9rZW4"},
			agree:       []string{"Sec-WebSocket-Protocol: phoenix"},
			subprotocol: "phoenix, one", resubprotocol: "phoenix, base64url.bearer.phx.dG9rZW4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, kept, "", nil)
			s.offer, s.agree = tt.offer, tt.agree
			s.open()
			first := s.upstream.request
			if got := first.Header.Get("Sec-WebSocket-Protocol"); got != tt.subprotocol {
				t.Errorf("subprotocol %q is offered, want %q", got, tt.subprotocol)
			}
			if got := first.Header.Get("Sec-WebSocket-Extensions"); got != tt.extensions {
				t.Errorf("extensions %q are offered, want %q", got, tt.extensions)
			}
			for attempt := 2; attempt < 4; attempt++ {
				s.upstream.reset()
				s.next()
				again := s.upstream.request
				if got := again.Header.Get("Stent-Attempt"); got != fmt.Sprint(attempt) {
					t.Errorf("attempt %s, want %d", got, attempt)
				}
				if got := again.Header.Get("Sec-WebSocket-Protocol"); got != tt.resubprotocol {
					t.Errorf("subprotocol %q is offered again, want %q", got, tt.resubprotocol)
				}
				if got := again.Header.Get("Sec-WebSocket-Extensions"); got != tt.reextensions {
					t.Errorf("extensions %q are offered again, want %q", got, tt.reextensions)
				}
				for _, name := range []string{"Stent-Session", "X-Request-Id", "X-Forwarded-For"} {
					if got, want := again.Header.Get(name), first.Header.Get(name); got != want {
						t.Errorf("%s is %q, was %q", name, got, want)
					}
				}
				s.upstream.send(text("hello"))
				s.client.expect("text hello")
			}
		})
	}
}

// Nothing is lost that either side sends before it could know that the
// session is open.
func TestEarlyData(t *testing.T) {
	for _, m := range anyMode {
		for _, route := range []string{"", "continuity: {}"} {
			t.Run(strings.TrimSpace(m.name+" "+route), func(t *testing.T) {
				t.Parallel()
				s := m.stage(t, route, "", testHandlers)
				c := s.dial()
				big := sent{h: text("").h, payload: []byte(strings.Repeat("x", 10000))}
				split := c.encode(text("split"))
				ahead := slices.Concat([]byte(handshake("/", m.offer...)), c.encode(text("ahead")), c.encode(big), split[:3])
				c.say(string(ahead))
				up := s.accept()
				up.say(up.switching(m.agree...) + string(slices.Concat(up.encode(text("with the 101")), up.encode(big), up.encode(text("split"))[:3])))
				if resp := c.status(); resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatal(resp.Status)
				}
				c.send(raw(split[3:]...))
				up.send(up.beyond(text("split"), 3))
				c.expect("text with the 101", "text 10000B", "text split")
				up.expect("text ahead", "text 10000B", "text split")
			})
		}
	}
}

// A reload leaves open sessions to the policy and the upstream they have.
func TestReloadKeepsSessions(t *testing.T) {
	s := newStage(t, "", "", nil)
	s.open()
	old, oldUpstream := s.client, s.upstream
	if err := s.proxy.Reload(s.parse(s.yaml("limits: {message_size: 4}", ""))); err != nil {
		t.Fatal(err)
	}
	old.send(text("longer than four"))
	oldUpstream.expect("text longer than four")
	oldUpstream.send(text("also longer"))
	old.expect("text also longer")

	s.open()
	s.client.send(text("longer than four"))
	s.client.expect("close 1009 message too big")

	if err := s.proxy.Reload(s.parse("routes: []")); err != nil {
		t.Fatal(err)
	}
	old.send(text("and on"))
	oldUpstream.expect("text and on")
	c := s.dial()
	c.say(handshake("/"))
	if resp := c.status(); resp.StatusCode != http.StatusNotFound {
		t.Errorf("after the route has gone: %s", resp.Status)
	}
}

// acts answers and changes messages by what they say.
func acts(_ *Session, m Message) Result {
	switch string(m.Data) {
	case "drop":
		return Drop()
	case "forward":
		return Forward(Binary, []byte("changed"))
	case "reply text":
		return ReplyText("answer")
	case "reply binary":
		return ReplyBinary([]byte("answer"))
	}
	return OK()
}

func TestHandlerResults(t *testing.T) {
	for _, m := range assembled {
		for _, from := range []Side{Client, Upstream} {
			t.Run(m.name+" from "+from.String(), func(t *testing.T) {
				t.Parallel()
				s := m.stage(t, "handlers: [own]", "", only(acts))
				s.open()
				here, there := s.client, s.upstream
				if from == Upstream {
					here, there = there, here
				}
				here.send(text("one"), text("drop"), text("forward"), first("reply "), middle("te"), last("xt"), text("reply binary"), text("two"))
				there.expect("text one", "binary changed", "text two")
				here.expect("text answer", "binary answer")
			})
		}
	}
}

// Each handler sees what the one before it passed on.
func TestHandlersInARow(t *testing.T) {
	add := func(suffix string) NewHandler {
		return func(any) (func() Handler, error) {
			return func() Handler {
				return handle(func(_ *Session, m Message) Result {
					if strings.Contains(string(m.Data), "stop at "+suffix) {
						return ReplyText("stopped at " + suffix)
					}
					return Forward(m.Type, append(slices.Clone(m.Data), suffix...))
				})
			}, nil
		}
	}
	s := newStage(t, "handlers: [a, b]", "", map[string]NewHandler{"a": add("a"), "b": add("b")})
	s.open()
	s.client.send(text("x"), text("stop at a"), text("stop at b"))
	s.upstream.expect("text xab")
	s.client.expect("text stopped at a", "text stopped at b")
	s.upstream.send(text("y"))
	s.client.expect("text yab")
}

// diary writes down how it is called.
type diary struct {
	name    string
	mu      *sync.Mutex
	entries *[]string
	refuse  error
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*d.entries = append(*d.entries, d.name+fmt.Sprintf(format, args...))
}

func (d *diary) Open(s *Session) error {
	if d.refuse != nil {
		return d.refuse
	}
	d.note("open %s %t", s.State(), s.Push(Client, Text, []byte("welcome")) == Held)
	return nil
}

func (d *diary) UpstreamUp(s *Session, attempt int) {
	d.note("up %d", attempt)
	if attempt > 0 {
		s.Push(Client, Text, fmt.Appendf(nil, "up %d", attempt))
		s.Push(Upstream, Text, fmt.Appendf(nil, "you are %d", attempt))
	}
}

func (d *diary) UpstreamDown(_ *Session, cause error) {
	var loss *relay.Loss
	d.note("down %t", errors.As(cause, &loss))
}

func (d *diary) Message(_ *Session, m Message) Result {
	d.note("%s %s", m.From, m.Data)
	return OK()
}

func (d *diary) Close(_ *Session, end End) { d.note("close %d %s", end.Code, end.Cause) }

func newDiary(t *testing.T, name string) (*diary, func() []string) {
	d := &diary{name: name, mu: new(sync.Mutex), entries: new([]string)}
	return d, func() []string {
		d.mu.Lock()
		defer d.mu.Unlock()
		return *d.entries
	}
}

func TestHandlerIsToldOfEverything(t *testing.T) {
	d, entries := newDiary(t, "")
	s := newStage(t, lines(kept, "handlers: [own]"), "", made(func() Handler { return d }))
	s.open()
	s.client.expect("text welcome", "text up 1")
	s.upstream.expect("text you are 1")
	s.client.send(text("a"))
	s.upstream.expect("text a")
	s.upstream.reset()
	s.next()
	s.client.expect("text up 2")
	s.upstream.expect("text you are 2")
	s.upstream.send(text("b"))
	s.client.expect("text b")
	s.client.send(closing(3000, "done"))
	s.upstream.expect("close 3000 done", "fin")
	s.upstream.Close()
	s.client.expect("close 3000 done")
	s.over()
	want := []string{"open connecting true", "up 1", "client a", "down true", "up 2", "upstream b", "close 3000 client closed"}
	if got := entries(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// Whoever was told of a session is told of its end, also where it never
// really began.
func TestHandlerIsToldOfARefusal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		refuse error
		want   []string
	}{
		{"by the handler behind it", &Refusal{Status: 403}, []string{"a:open connecting true", "a:close 0 handler stopped"}},
		{"by the upstream", nil, []string{"a:open connecting true", "b:open connecting true", "a:close 0 client gone", "b:close 0 client gone"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, entries := newDiary(t, "a:")
			b := &diary{name: "b:", mu: a.mu, entries: a.entries, refuse: tt.refuse}
			named := func(d *diary) NewHandler {
				return func(any) (func() Handler, error) { return func() Handler { return d }, nil }
			}
			s := newStage(t, "handlers: [a, b]", "", map[string]NewHandler{"a": named(a), "b": named(b)})
			c := s.dial()
			c.say(handshake("/"))
			if tt.refuse == nil {
				s.accept().say("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
			}
			if resp := c.status(); resp.StatusCode != 403 {
				t.Errorf("answered %s", resp.Status)
			}
			s.over()
			if got := entries(); !slices.Equal(got, tt.want) {
				t.Errorf("told %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPush(t *testing.T) {
	for _, m := range anyMode {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, kept, "", testHandlers)
			s.open()
			session := s.session()
			push := func(to Side, data string, want Pushed) {
				t.Helper()
				if got := session.Push(to, Text, []byte(data)); got != want {
					t.Errorf("push to %s: %d, want %d", to, got, want)
				}
			}
			s.client.send(text("both are there"))
			s.upstream.expect("text both are there")
			push(Client, "to client", Written)
			s.client.expect("text to client")
			push(Upstream, "to upstream", Written)
			s.upstream.expect("text to upstream")

			s.upstream.reset()
			refused := s.accept()
			push(Upstream, "to the next upstream", Held)
			push(Client, "while held", Written)
			s.client.expect("text while held")
			refused.reset()
			s.next()
			s.upstream.expect("text to the next upstream")

			s.client.send(closing(1000, ""))
			s.upstream.expect("close 1000", "fin")
			s.upstream.Close()
			s.client.expect("close 1000")
			s.over()
			push(Client, "late", Gone)
			push(Upstream, "late", Gone)
		})
	}
}

// A push waits for the end of a message that is passing.
func TestPushInsideAMessage(t *testing.T) {
	s := newStage(t, "", "", nil)
	s.open()
	s.upstream.send(first("a"))
	s.client.expect("text+ a")
	if got := s.session().Push(Client, Text, []byte("pushed")); got != Written {
		t.Errorf("pushed: %d", got)
	}
	s.upstream.send(middle("b"), last("c"), text("d"))
	s.client.expect("cont+ b", "cont c")
	got := []string{s.client.next(), s.client.next()}
	slices.Sort(got)
	if want := []string{"text d", "text pushed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Pushes from many goroutines and messages from both sides at once arrive
// whole, and each sender's in order.
func TestPushFromEverywhere(t *testing.T) {
	for _, m := range anyMode {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, "", "", testHandlers)
			s.open()
			session := s.session()
			const senders, each = 4, 200
			var all sync.WaitGroup
			for sender := range senders {
				all.Go(func() {
					for i := range each {
						for session.Push(Client, Text, fmt.Appendf(nil, "%d:%d", sender, i)) == Full {
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
			all.Go(func() {
				for i := range each {
					s.upstream.send(text(fmt.Sprintf("u:%d", i)))
				}
			})
			next := map[string]int{}
			for range (senders + 1) * each {
				event := s.client.next()
				var i int
				sender, number, ok := strings.Cut(strings.TrimPrefix(event, "text "), ":")
				if _, err := fmt.Sscan(number, &i); !ok || err != nil || i != next[sender] {
					t.Errorf("got %q, want number %d of its sender; so far %v", event, next[sender], next)
					break
				}
				next[sender]++
			}
			all.Wait()
		})
	}
}

// A worker that panics is served again; its client does not notice where its
// stream is whole, and strangers never do.
func TestWorkerPanics(t *testing.T) {
	for _, tt := range []struct {
		name  string
		route string
		at    faultPoint
		skip  int // calls before the first panic
		times int
		lose  int // upstreams that are lost on the way
	}{
		{name: "before the first dial", at: faultServe, times: 3},
		{name: "at the first dial", at: faultDial, times: 3},
		{name: "before the first dial, with continuity", route: kept, at: faultServe, times: 3},
		{name: "after a loss", route: kept, at: faultServe, skip: 1, times: 3, lose: 1},
		{name: "at a redial", route: kept, at: faultDial, skip: 1, times: 3, lose: 1},
		{name: "again and again", route: kept, at: faultDial, skip: 1, times: 1, lose: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, tt.route, "", nil)
			s.open()
			stranger, strangersUpstream := s.client, s.upstream
			var mu sync.Mutex
			calls := 0
			fault := func(session *Session, at faultPoint) {
				mu.Lock()
				defer mu.Unlock()
				if at != tt.at {
					return
				}
				if calls++; calls > tt.skip && calls <= tt.skip+tt.times {
					panic("a test's own fault")
				}
			}
			s.fault.Store(&fault)
			s.open()
			for range tt.lose {
				s.client.send(text("before"))
				s.upstream.expect("text before")
				s.upstream.reset()
				s.next()
			}
			s.client.send(text("a"))
			s.upstream.expect("text a")
			s.upstream.send(text("b"))
			s.client.expect("text b")
			if calls < tt.times {
				t.Errorf("%d panics, want %d", calls, tt.times)
			}
			stranger.send(text("c"))
			strangersUpstream.expect("text c")
		})
	}
}

// A worker that panics without end takes its client along, with an answer.
func TestWorkerPanicsForever(t *testing.T) {
	panics := func(*Session, faultPoint) { panic("a test's own fault") }
	t.Run("before the answer", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, "", "", nil)
		s.fault.Store(&panics)
		c := s.dial()
		c.say(handshake("/"))
		resp := c.status()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 500 {
			t.Errorf("answered %s, %v", resp.Status, err)
		}
		checkProblem(t, resp, body)
		s.over()
		s.checkBooks(t)
	})
	t.Run("after a loss", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, kept, "", nil)
		s.open()
		s.fault.Store(&panics)
		s.upstream.reset()
		if got, want := s.client.rest(), []string{"close 1011 internal error", "fin"}; !saw(got, want) {
			t.Errorf("client saw %q, want %q", got, want)
		}
		s.over()
		want{byStent, 1011, "internal error", relay.Failed}.check(t, s)
	})
}

// A handler that panics ends its session and no other one.
func TestHandlerPanicIsAlone(t *testing.T) {
	for _, in := range []string{"message", "up", "down", "close"} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, lines(kept, "handlers: [own]"), "", made(func() Handler { return &faulty{in: in} }))
			s.open()
			stranger, strangersUpstream := s.client, s.upstream
			s.offer = []string{"X-Fault: yes"}
			s.open()
			switch in {
			case "message", "close":
				s.client.send(text("a"))
			case "down":
				s.upstream.reset()
			}
			event := s.client.next()
			if in == "close" {
				if event = s.client.next(); event != "silence" {
					event = "close 1011 internal error"
				}
			}
			if event != "close 1011 internal error" {
				t.Errorf("got %q", event)
			}
			stranger.send(text("c"))
			strangersUpstream.expect("text c")
		})
	}
}

// faulty panics in one of its callbacks where its client asks for it.
type faulty struct {
	in     string
	active bool
}

func (f *faulty) fault(in string) {
	if f.active && in == f.in {
		panic("a handler's own fault")
	}
}

func (f *faulty) Open(s *Session) error {
	f.active = s.Header().Get("X-Fault") != ""
	return nil
}

func (f *faulty) Message(_ *Session, m Message) Result {
	f.fault("message")
	if f.active && f.in == "close" {
		return Stop(4000, "")
	}
	return OK()
}

func (f *faulty) UpstreamUp(*Session, int)     { f.fault("up") }
func (f *faulty) UpstreamDown(*Session, error) { f.fault("down") }
func (f *faulty) Close(*Session, End)          { f.fault("close") }

// Where there is no upstream the handlers are the application.
func TestAlone(t *testing.T) {
	answer := func(_ *Session, m Message) Result {
		if r := stopper(nil, m); r.Verdict != relay.OK {
			return r
		}
		return ReplyText("you said " + string(m.Data))
	}
	for _, tt := range []struct {
		name   string
		play   func(s *stage)
		client []string
		end    want
	}{
		{"client closes", func(s *stage) { s.client.send(closing(3000, "done")) },
			[]string{"close 3000 done", "fin"}, want{byClient, 3000, "done", relay.ClientClosed}},
		{"client vanishes", func(s *stage) { s.client.halfClose() },
			fin, want{byClient, 0, "", relay.ClientGone}},
		{"client breaks the protocol", func(s *stage) { s.client.send(raw(0x83, 0x80, 1, 2, 3, 4)) },
			[]string{"close 1002 protocol error", "fin"}, want{byClient, 1002, "protocol error", relay.ClientProtocol}},
		{"stop", func(s *stage) { s.client.send(text("stop 4001")) },
			[]string{"close 4001 enough", "fin"}, want{byStent, 4001, "enough", relay.HandlerStopped}},
		{"panic", func(s *stage) { s.client.send(text("panic")) },
			[]string{"close 1011 internal error", "fin"}, want{byStent, 1011, "internal error", relay.HandlerFailed}},
		{"kick", func(s *stage) { s.session().Close(0, "") },
			[]string{"close 1008 closed by the operator", "fin"}, want{byStent, 1008, "closed by the operator", relay.Kicked}},
		{"drain", func(s *stage) { s.stop() },
			[]string{"close 1012 proxy is restarting", "fin"}, want{byStent, 1012, "proxy is restarting", relay.Draining}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStageAlone(t, only(answer))
			s.client = s.dial()
			s.client.say(handshake("/", "Sec-WebSocket-Protocol: one, two"))
			if resp := s.client.status(); resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Protocol") != "one" {
				t.Fatalf("answered %s, %v", resp.Status, resp.Header)
			}
			s.client.send(text("hello"))
			s.client.expect("text you said hello")
			if got := s.session().Push(Upstream, Text, nil); got != Gone {
				t.Errorf("push to nobody: %d", got)
			}
			tt.play(s)
			if got := s.client.rest(); !saw(got, tt.client) {
				t.Errorf("client saw %q, want %q", got, tt.client)
			}
			s.over()
			tt.end.check(t, s)
		})
	}
}

// A client that is accepted early waits for its upstream, and what it says
// waits with it.
func TestAcceptEarly(t *testing.T) {
	for _, m := range anyMode {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := m.stage(t, "continuity: {accept_early: true, hold: 10s, backoff: {min: 1ms, max: 10ms}}", "", testHandlers)
			s.client = s.dial()
			s.client.say(handshake("/", m.offer...))
			if resp := s.client.status(); resp.StatusCode != 101 {
				t.Fatal(resp.Status)
			}
			s.client.send(text("early"), ping("are you there"))
			s.client.expect("pong are you there")
			refusing := s.accept()
			if got := s.session().State(); got != HeldState {
				t.Errorf("state %s", got)
			}
			refusing.say("HTTP/1.1 503 Not yet\r\nContent-Length: 0\r\n\r\n")
			s.agree = m.agree
			s.next()
			s.upstream.expect("text early")
			s.upstream.send(text("late"))
			s.client.expect("text late")
			s.client.send(closing(1000, ""))
			s.upstream.expect("close 1000", "fin")
			s.upstream.Close()
			s.client.expect("close 1000", "fin")
			s.over()
			want{byClient, 1000, "", relay.ClientClosed}.check(t, s)
		})
	}
}

// A drain spreads its closes: clients that all come back at once would be a
// stampede on the next instance.
func TestDrainIsPaced(t *testing.T) {
	s := newStage(t, "", "shutdown: {drain: 2s}", nil)
	const n = 8
	var clients []*wire
	for range n {
		s.open()
		go s.upstream.rest()
		clients = append(clients, s.client)
	}
	start := time.Now()
	s.stop()
	var mu sync.Mutex
	var at []time.Duration
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			got := c.rest()
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
			if want := []string{"close 1012 proxy is restarting", "fin"}; !saw(got, want) {
				t.Errorf("client saw %q, want %q", got, want)
			}
		})
	}
	all.Wait()
	if err := <-s.done; err != nil {
		t.Errorf("run: %v", err)
	}
	slices.Sort(at)
	for i, d := range at {
		if due := time.Duration(i) * 2 * time.Second * 8 / 10 / n; d < due {
			t.Errorf("close %d came after %s, before its time %s", i, d, due)
		}
	}
}
