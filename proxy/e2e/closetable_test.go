package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// closing is one row of the close table: what an upstream and a client do to
// a session, and what each then sees on the wire, to the end of TCP.
type closing struct {
	name string
	// keys are further keys of the row's route.
	keys string
	// upstream and client act after the handshakes; then they only read on,
	// answering pings and closes.
	upstream, client func(*wire.Conn)
	// ends are what the client and the server must see, and in message mode,
	// where it differs. A close is compared by its code; "end" is FIN or RST.
	toClient, toServer                 []string
	messagesToClient, messagesToServer []string
	// only limits the row to ways for which it holds.
	only func(way) bool
}

func quiet(*wire.Conn) {}

func sends(frames ...wire.Frame) func(*wire.Conn) {
	return func(c *wire.Conn) { _ = c.Send(frames...) }
}

// plain returns frames as a server sends them.
func plain(frames ...wire.Frame) []wire.Frame {
	all := slices.Clone(frames)
	for i := range all {
		all[i].Masked = false
	}
	return all
}

func says(frames ...wire.Frame) func(*wire.Conn) { return sends(plain(frames...)...) }

func then(all ...func(*wire.Conn)) func(*wire.Conn) {
	return func(c *wire.Conn) {
		for _, do := range all {
			do(c)
		}
	}
}

func leave(c *wire.Conn) { _ = c.Close() }
func reset(c *wire.Conn) { _ = c.Abort() }
func mute(c *wire.Conn)  { c.Mute = true }

// awaits reads until a frame of op comes, and answers it not.
func awaits(op byte) func(*wire.Conn) {
	return func(c *wire.Conn) {
		was := c.Mute
		c.Mute = true
		defer func() { c.Mute = was }()
		for {
			if f, err := c.Next(); err != nil || f.Op == op {
				c.Seen = append(c.Seen, f.String())
				return
			}
		}
	}
}

// answersPings reads until it has answered three pings.
func answersPings(c *wire.Conn) {
	was := c.Mute
	c.Mute = true
	defer func() { c.Mute = was }()
	for n := 0; n < 3; {
		f, err := c.Next()
		if err != nil {
			return
		}
		if f.Op == wire.Ping {
			_ = c.Send(wire.Frame{Op: wire.Pong, Payload: f.Payload})
			n++
		}
	}
}

// part returns the first n bytes of a frame.
func part(f wire.Frame, n int) func(*wire.Conn) {
	return func(c *wire.Conn) { _, _ = c.Write(f.Append(nil)[:n]) }
}

func closings() []closing {
	hello := text1("hello")
	half := with(text1("half"), open)
	rest := frame(wire.Continuation, " whole")
	long := frame(wire.Binary, strings.Repeat("x", 100))
	all := []closing{
		{
			name:     "upstream closes without code",
			upstream: says(bye1(0, "")), client: quiet,
			toClient: []string{"close", "end"}, toServer: []string{"close", "end"},
		},
		{
			name:     "upstream answers, closes and resets",
			upstream: then(awaits(wire.Text), says(text1("one"), text1("two"), bye1(4001, "own")), reset), client: sends(hello),
			toClient: []string{`text "one"`, `text "two"`, "close 4001", "end"},
		},
		{
			name:     "upstream's FIN between frames",
			upstream: then(says(hello), leave), client: quiet,
			toClient: []string{`text "hello"`, "close 1012", "end"},
		},
		{
			name:     "upstream's RST between frames",
			upstream: then(says(hello), awaits(wire.Text), reset), client: then(awaits(wire.Text), sends(hello)),
			toClient: []string{"close 1012", "end"},
		},
		{
			name:     "upstream's FIN inside a header",
			upstream: then(says(hello), part(plain(long)[0], 1), leave), client: quiet,
			toClient: []string{`text "hello"`, "close 1012", "end"},
		},
		{
			name:     "upstream's FIN inside a frame",
			upstream: then(says(hello), part(plain(long)[0], 50), leave), client: quiet,
			toClient:         []string{`text "hello"`, "rst inside a frame"},
			messagesToClient: []string{`text "hello"`, "close 1012", "end"},
		},
		{
			name:     "upstream's FIN between fragments",
			upstream: then(says(hello, half), leave), client: quiet,
			toClient:         []string{`text "hello"`, `text open "half"`, "rst"},
			messagesToClient: []string{`text "hello"`, "close 1012", "end"},
		},
		{
			name:     "client's FIN between frames",
			upstream: quiet, client: then(sends(hello), leave),
			toServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name:     "client's RST between frames",
			upstream: says(hello), client: then(sends(hello), awaits(wire.Text), reset),
			toServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name:     "client's FIN inside a header",
			upstream: quiet, client: then(sends(hello), part(long, 3), leave),
			toServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name:     "client's FIN inside a frame",
			upstream: quiet, client: then(sends(hello), part(long, 50), leave),
			toServer:         []string{`text "hello"`, "end inside a frame"},
			messagesToServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name:     "client's FIN between fragments",
			upstream: quiet, client: then(sends(hello, half), leave),
			toServer:         []string{`text "hello"`, `text open "half"`, "close 1001", "end"},
			messagesToServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name:     "client closes, upstream answers first",
			upstream: then(awaits(wire.Close), says(text1("a"), text1("b"), bye1(4001, "own"))), client: sends(hello, goodBy),
			toClient: []string{`text "a"`, `text "b"`, "close 4001", "end"}, toServer: []string{"close 1000", "end"},
			messagesToClient: []string{`text "a"`, `text "b"`, "close 1000", "end"},
		},
		{
			name:     "client closes without code",
			upstream: quiet, client: sends(bye1(0, "")),
			toClient: []string{"close", "end"}, toServer: []string{"close", "end"},
		},
		{
			name:     "client closes, upstream never answers",
			upstream: mute, client: sends(bye1(4321, "bye")),
			toClient: []string{"close 4321", "end"}, toServer: []string{"close 4321", "end"},
		},
		{
			name:     "client closes, upstream goes without answer",
			upstream: then(awaits(wire.Close), leave), client: sends(bye1(4321, "bye")),
			toClient: []string{"close 4321", "end"},
		},
		{
			name:     "client breaks the protocol, upstream answers first",
			upstream: then(awaits(wire.Close), says(text1("late"), bye1(1002, ""))), client: sends(hello, frame(5, "")),
			toClient: []string{`text "late"`, "close 1002", "end"}, toServer: []string{"close 1002", "end"},
		},
		{
			name:     "client breaks the protocol, upstream never answers",
			upstream: mute, client: sends(frame(5, "")),
			toClient: []string{"close 1002", "end"}, toServer: []string{"close 1002", "end"},
		},
		{
			name: "idle", keys: "timeouts: {idle: 300ms, close: 500ms}",
			upstream: quiet, client: quiet,
			toClient: []string{"close 1001", "end"}, toServer: []string{"close 1001", "end"},
		},
		{
			name: "lifetime", keys: "timeouts: {lifetime: 300ms, close: 500ms}",
			upstream: quiet, client: quiet,
			toClient: []string{"close 1001", "end"}, toServer: []string{"close 1001", "end"},
		},
		{
			name: "client silent past keepalive", keys: "keepalive: {interval: 200ms, timeout: 200ms}",
			upstream: quiet, client: mute,
			toClient: []string{"ping", "close 1001", "end"}, toServer: []string{"close 1001", "end"},
		},
		{
			name: "upstream silent past keepalive", keys: "keepalive: {interval: 200ms, timeout: 200ms}",
			upstream: mute, client: quiet,
			toClient: []string{"close 1012", "end"}, toServer: []string{"ping", "close 1001", "end"},
		},
		{
			name: "both answer keepalive", keys: "keepalive: {interval: 100ms, timeout: 2s}",
			upstream: then(answersPings, says(frame(wire.Pong, "unasked"), bye1(4000, "why"))), client: quiet,
			toClient:         []string{`pong "unasked"`, "close 4000", "end"},
			messagesToClient: []string{"close 4000", "end"},
		},
		{
			name: "client message too big", keys: "limits: {message_size: 100}",
			upstream: quiet, client: sends(hello, long, frame(wire.Binary, strings.Repeat("y", 101))),
			toClient: []string{"close 1009", "end"}, toServer: []string{`text "hello"`, long.String(), "close 1001", "end"},
		},
		{
			name: "client fragments too big together", keys: "limits: {message_size: 9}",
			upstream: quiet, client: sends(half, rest),
			toClient: []string{"close 1009", "end"}, toServer: []string{`text open "half"`, "close 1001", "end"},
			messagesToServer: []string{"close 1001", "end"},
		},
		{
			name: "upstream message too big", keys: "limits: {message_size: 100}",
			upstream: says(hello, frame(wire.Binary, strings.Repeat("y", 101))), client: quiet,
			toClient: []string{`text "hello"`, "close 1009", "end"}, toServer: []string{"close 1001", "end"},
		},
		{
			name: "message of terabytes announced", keys: "limits: {message_size: 16MiB}",
			upstream: quiet, client: then(sends(hello), part(with(long, func(f *wire.Frame) { f.Form, f.Length = 64, 1<<42 }), 60)),
			toClient: []string{"close 1009", "end"}, toServer: []string{`text "hello"`, "close 1001", "end"},
		},
		{
			name: "too many messages", keys: "limits: {messages_per_second: 3, on_limit: close}",
			upstream: quiet, client: sends(hello, hello, hello, hello, hello, hello),
			toClient: []string{"close 1008", "end"}, toServer: []string{`text "hello"`, `text "hello"`, `text "hello"`, "close 1001", "end"},
		},
		{
			name:     "bad UTF-8 from upstream",
			upstream: says(hello, text1("\xff\xfe"), bye1(4001, "")), client: quiet,
			toClient: []string{`text "hello"`, "text ff fe", "close 4001", "end"}, toServer: []string{"close 4001", "end"},
			messagesToClient: []string{`text "hello"`, "close 1007", "end"}, messagesToServer: []string{"close 1001", "end"},
		},
		{
			name: "bad UTF-8 with a close right behind it", keys: "timeouts: {close: 5s}",
			upstream: quiet, client: sends(text1("\xff\xfe"), goodBy),
			toClient: []string{"close 1000", "end"}, toServer: []string{"text ff fe", "close 1000", "end"},
			messagesToClient: []string{"close 1007", "end"}, messagesToServer: []string{"close 1001", "end"},
		},
		{
			name: "a handler stops", keys: `handlers: [{rules: [{when: 'text == "stop"', stop: {code: 4005, reason: "enough"}}]}]`,
			upstream: quiet, client: sends(hello, text1("stop"), text1("never")),
			toClient: []string{"close 4005", "end"}, toServer: []string{`text "hello"`, "close 1001", "end"},
			only: func(w way) bool { return w == relay },
		},
		{
			name: "a handler stops with no code", keys: `handlers: [{rules: [{when: 'text == "stop"', stop: {}}]}]`,
			upstream: says(text1("stop")), client: quiet,
			toClient: []string{"close 1000", "end"}, toServer: []string{"close 1001", "end"},
			only: func(w way) bool { return w == relay },
		},
		{
			name: "a handler replies, drops and forwards",
			keys: `handlers: [{rules: [{when: 'json?.op == "ping"', reply_text: '{"op":"pong"}'}, {when: 'type == "binary"', drop: true}, ` +
				`{when: 'from == "client" && text contains "secret"', forward_text: '"***"'}, {when: 'text == "bin"', reply_binary: "AQID"}]}]`,
			upstream: then(awaits(wire.Text), says(text1("done"), bye1(4000, ""))),
			client:   sends(text1(`{"op":"ping"}`), long, text1("bin"), text1("a secret")),
			toClient: []string{`text "{\"op\":\"pong\"}"`, `binary "\x01\x02\x03"`, `text "done"`, "close 4000", "end"},
			toServer: []string{`text "\"***\""`, "close 4000", "end"},
			only:     func(w way) bool { return w == relay },
		},
	}
	for _, code := range []int{1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4999} {
		all = append(all, closing{
			name:     fmt.Sprintf("upstream closes %d", code),
			upstream: says(hello, bye1(code, "why")), client: quiet,
			toClient: []string{`text "hello"`, fmt.Sprintf("close %d \"why\"", code), "end"},
			toServer: []string{fmt.Sprintf("close %d", code), "end"},
		})
	}
	return append(all, upstreamBreaks()...)
}

// upstreamBreaks are the ways in which an upstream breaks the protocol.
func upstreamBreaks() []closing {
	bad := map[string][]wire.Frame{
		"a mask":                    {text1("masked")},
		"rsv 1":                     plain(with(text1("bad"), func(f *wire.Frame) { f.RSV = 4 })),
		"rsv 2":                     plain(with(text1("bad"), func(f *wire.Frame) { f.RSV = 2 })),
		"opcode 3":                  plain(frame(3, "bad")),
		"opcode 11":                 plain(frame(11, "")),
		"a continuation of nothing": plain(frame(wire.Continuation, "bad")),
		"a long ping":               plain(ping1(strings.Repeat("p", 126))),
		"a ping in fragments":       plain(with(ping1("a"), open)),
		"a close of one byte":       plain(frame(wire.Close, "\x03")),
		"a close of 126 bytes":      plain(bye1(1000, strings.Repeat("r", 124))),
		"close 1005":                plain(bye1(1005, "")),
		"close 1006":                plain(bye1(1006, "")),
		"close 1015":                plain(bye1(1015, "")),
		"close 999":                 plain(bye1(999, "")),
		"close 5000":                plain(bye1(5000, "")),
		"a length with the top bit": plain(with(text1("bad"), func(f *wire.Frame) { f.Form, f.Length = 64, 1<<63|5 })),
	}
	var all []closing
	for what, frames := range bad {
		all = append(all, closing{
			name:     "upstream sends " + what,
			upstream: sends(append(plain(text1("good")), frames...)...), client: quiet,
			toClient: []string{`text "good"`, "close 1011", "end"},
			toServer: []string{"close 1002", "end"},
		})
	}
	slices.SortFunc(all, func(a, b closing) int { return strings.Compare(a.name, b.name) })
	return append(all, closing{
		name:     "upstream sends a text inside a message",
		upstream: says(with(text1("half"), open), text1("bad")), client: quiet,
		// It is lost inside a message that has begun.
		toClient: []string{`text open "half"`, "rst"}, toServer: []string{"close 1002", "end"},
		messagesToClient: []string{"close 1011", "end"},
	})
}

// TestCloseTable plays every row in each mode through one stent, which must
// be left with no session.
func TestCloseTable(t *testing.T) {
	gate(t)
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			var routes, upstreams strings.Builder
			seen := make(map[string]chan []string)
			table := slices.DeleteFunc(closings(), func(c closing) bool { return c.only != nil && !c.only(w) })
			for i, c := range table {
				saw := make(chan []string, 1)
				seen[c.name] = saw
				up := listen(t, func(conn *wire.Conn) {
					conn.Whole = w.messages()
					if conn.Open() != nil {
						return
					}
					c.upstream(conn)
					saw <- append(conn.Seen, conn.Rest()...)
				})
				keys := c.keys
				if !strings.Contains(keys, "timeouts") {
					keys += "\ntimeouts: {close: 500ms}"
				}
				keys = "    " + strings.ReplaceAll(strings.TrimSpace(keys), "\n", "\n    ") + "\n" + w.mode()
				fmt.Fprintf(&routes, "  - path: /%d\n    upstream: u%d\n%s", i, i, keys)
				fmt.Fprintf(&upstreams, "  u%d: {targets: [ws://%s]}\n", i, up)
			}
			s := startStent(t, fmt.Sprintf("log: {level: warn}\nshutdown: {drain: 1s}\nroutes:\n%supstreams:\n%s", &routes, &upstreams))
			for i, c := range table {
				t.Run(c.name, func(t *testing.T) {
					c.play(t, w, s.address, fmt.Sprintf("/%d", i), seen[c.name])
				})
			}
		})
	}
}

func (c closing) play(t *testing.T, w way, address, target string, seen <-chan []string) {
	t.Helper()
	conn, err := wire.Dial(address, wire.Hello(address, target))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Answer.StatusCode != 101 {
		t.Fatalf("refused with %s", conn.Answer.Status)
	}
	conn.Whole = w.messages()
	c.client(conn)
	began := time.Now()
	toClient, toServer := c.toClient, c.toServer
	if w.messages() && c.messagesToClient != nil {
		toClient = c.messagesToClient
	}
	if w.messages() && c.messagesToServer != nil {
		toServer = c.messagesToServer
	}
	if row := conn.Rest(); toClient != nil && !likes(toClient, row) {
		t.Errorf("the client sees\n\t%q\nand should see\n\t%q", row, toClient)
	}
	select {
	case row := <-seen:
		if toServer != nil && !likes(toServer, row) {
			t.Errorf("the server sees\n\t%q\nand should see\n\t%q", row, toServer)
		}
	case <-time.After(12 * time.Second):
		t.Error("the server sees no end")
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
}

// likes compares a row with what it should be: lines in full, but a close by
// its code and a ping by itself where no more is said; "end" is any end.
func likes(want, row []string) bool {
	if len(want) != len(row) {
		return false
	}
	for i, line := range want {
		got := row[i]
		switch line {
		case "end":
			got = strings.NewReplacer("fin", "end", "rst", "end").Replace(got)
		case "end inside a frame":
			got = strings.NewReplacer("fin", "end", "rst", "end").Replace(got)
		case "rst inside a frame":
		case "ping":
			got, _, _ = strings.Cut(got, " ")
		case "close":
			if got == `close ""` {
				got = "close"
			}
		default:
			if strings.HasPrefix(line, "close ") && strings.Count(line, " ") == 1 {
				if f := strings.Fields(got); len(f) > 1 {
					got = strings.Join(f[:2], " ")
				}
			}
		}
		if got != line {
			return false
		}
	}
	return true
}

// listen runs a scripted upstream until the test ends.
func listen(t testing.TB, script func(*wire.Conn)) string {
	t.Helper()
	s, err := wire.Listen(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Address
}
