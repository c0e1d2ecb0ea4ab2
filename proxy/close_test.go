package proxy

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stentproxy/stent/proxy/relay"
)

// closeRow is one way for a session to end: what is played, and what both
// sides and the operator see of it.
type closeRow struct {
	name  string
	in    []mode // nil: all
	route string // keys of the route
	top   string // keys of the file
	own   func(*Session, Message) Result
	// play runs when both sides are connected.
	play func(s *stage)
	// client and upstream are what the two sides see from then on, to the
	// end of their streams; nil where that side is no longer there.
	client, upstream []string
	end              want
}

// want is what the log and the metrics say of an end.
type want struct {
	initiator string
	code      int
	reason    string
	cause     relay.Cause
}

// hasty bounds the closing handshake where somebody does not answer.
const hasty = "timeouts: {close: 300ms}"

// kept is a continuity that redials without a pause.
const kept = "continuity: {hold: 20s, backoff: {min: 1ms, max: 10ms}}"

var fin = []string{"fin"}

func TestCloseTable(t *testing.T) {
	for _, row := range slices.Concat(clientEnds, upstreamEnds, continuityEnds, limitEnds, handlerEnds, timeEnds, ownEnds) {
		in := row.in
		if in == nil {
			in = anyMode
		}
		for _, m := range in {
			t.Run(row.name+"/"+m.name, func(t *testing.T) {
				t.Parallel()
				row.run(t, m)
			})
		}
	}
}

func (r *closeRow) run(t *testing.T, m mode) {
	route, handlers := r.route, testHandlers
	if r.own != nil {
		route, handlers = lines(route, "handlers: [own]"), only(r.own)
	}
	s := m.stage(t, route, r.top, handlers)
	s.open()
	r.play(s)

	upstream := make(chan []string, 1)
	go func() {
		if r.upstream == nil {
			upstream <- nil
			return
		}
		upstream <- s.upstream.rest()
	}()
	if r.client != nil {
		if got := s.client.rest(); !saw(got, r.client) {
			t.Errorf("client saw %q, want %q", got, r.client)
		}
	}
	if got := <-upstream; !saw(got, r.upstream) {
		t.Errorf("upstream saw %q, want %q", got, r.upstream)
	}
	s.over()
	r.end.check(t, s)
}

// check compares the log line and the metrics of the one session's end, and
// that all books are closed behind it.
func (w want) check(t *testing.T, s *stage) {
	t.Helper()
	line := s.closed()
	got := want{cause: w.cause, initiator: line["initiator"].(string), code: int(line["code"].(int64)), reason: line["reason"].(string)}
	if got != w || line["cause"] != w.cause.String() {
		t.Errorf("log says %+v of %q, want %+v of %q", got, line["cause"], w, w.cause)
	}
	code := fmt.Sprint(w.code)
	if w.code == 0 {
		code = "none"
	}
	m := s.metrics()
	key := fmt.Sprintf("stent_sessions_closed_total{code=%s,initiator=%s,route=/*}", code, w.initiator)
	if m[key] != 1 {
		t.Errorf("%s is %v, want 1", key, m[key])
	}
	if got := m["stent_sessions_opened_total{route=/*}"]; got != 1 {
		t.Errorf("%v sessions opened, want 1", got)
	}
	s.checkBooks(t)
}

// checkBooks fails where something still counts a session that has ended.
func (s *stage) checkBooks(t *testing.T) {
	t.Helper()
	for key, v := range s.metrics() {
		if strings.HasPrefix(key, "stent_sessions{") && v != 0 {
			t.Errorf("%s is %v after the end", key, v)
		}
	}
	for _, u := range s.proxy.pools.Snapshot() {
		for _, target := range u.Targets {
			if target.Sessions != 0 {
				t.Errorf("target %s still has %d sessions", target.Name, target.Sessions)
			}
		}
	}
	a := s.proxy.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions != 0 || len(a.byIP) != 0 {
		t.Errorf("admission still has %d sessions, of %d addresses", a.sessions, len(a.byIP))
	}
}

// metrics are the proxy's counters and gauges, by name{label=value,…}.
func (s *stage) metrics() map[string]float64 {
	s.t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(s.proxy); err != nil {
		s.t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ","))
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// Row "client closes", "client vanishes", "client breaks the protocol".
var clientEnds = []closeRow{
	{
		name: "client closes, upstream says more and closes otherwise", in: relayed,
		play: func(s *stage) {
			s.client.send(closing(3000, "done"))
			s.upstream.expect("close 3000 done")
		},
		client: []string{"close 3000 done", "fin"}, upstream: fin,
		end: want{byClient, 3000, "done", relay.ClientClosed},
	},
	{
		name: "client closes, upstream's answers and its own close", in: relayed,
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(closing(3000, "done"))
			s.upstream.expect("close 3000 done")
			s.upstream.send(text("a"), text("b"), closing(3001, "bye"))
		},
		client: []string{"text a", "text b", "close 3001 bye", "fin"}, upstream: fin,
		end: want{byClient, 3001, "bye", relay.ClientClosed},
	},
	{
		name: "client closes, upstream's answers and an echo", in: assembled,
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(closing(3000, "done"))
			s.upstream.expect("close 3000 done")
			s.upstream.send(text("a"), text("b"), closing(3001, "bye"))
		},
		client: []string{"text a", "text b", "close 3000 done", "fin"}, upstream: fin,
		end: want{byClient, 3000, "done", relay.ClientClosed},
	},
	{
		name:   "client closes without a code",
		play:   func(s *stage) { s.client.send(closing(0, "")); s.upstream.expect("close") },
		client: []string{"close", "fin"}, upstream: fin,
		end: want{byClient, 0, "", relay.ClientClosed},
	},
	{
		name: "client closes and upstream never answers", route: hasty,
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(closing(1000, "bye"))
			s.upstream.expect("close 1000 bye")
			s.upstream.send(text("still here"))
		},
		client: []string{"text still here", "close 1000 bye", "fin"}, upstream: fin,
		end: want{byClient, 1000, "bye", relay.ClientClosed},
	},
	{
		name: "client closes and upstream ends without a close",
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(closing(1000, "bye"))
			s.upstream.expect("close 1000 bye")
			s.upstream.halfClose()
		},
		client: []string{"close 1000 bye", "fin"}, upstream: fin,
		end: want{byClient, 1000, "bye", relay.ClientClosed},
	},
	{
		name: "client closes and takes nothing more", route: "timeouts: {close: 1s}", // in which its buffers fill
		play: func(s *stage) {
			s.upstream.mute = true
			shrink(s.t, s.client)
			s.client.send(closing(1000, "bye"))
			s.upstream.expect("close 1000 bye")
			go s.upstream.flood(64 << 20)
			s.over()
		},
		client: []string{"...", "torn", "rst"}, upstream: []string{"..."},
		end: want{byClient, 0, "", relay.ClientClosed},
	},
	{
		name:     "client closes between its fragments",
		in:       relayed,
		play:     func(s *stage) { s.client.send(first("a"), closing(1000, "")) },
		client:   []string{"close 1000", "fin"},
		upstream: []string{"text+ a", "close 1000", "fin"},
		end:      want{byClient, 1000, "", relay.ClientClosed},
	},
	{
		name:     "client closes and says more",
		play:     func(s *stage) { s.client.send(closing(1000, ""), text("too late")) },
		client:   []string{"close 1000", "fin"},
		upstream: []string{"close 1000", "fin"},
		end:      want{byClient, 1000, "", relay.ClientClosed},
	},
	{
		name:     "client vanishes",
		play:     func(s *stage) { s.client.Close() },
		upstream: []string{"close 1001", "fin"},
		end:      want{byClient, 0, "", relay.ClientGone},
	},
	{
		name:     "client resets",
		play:     func(s *stage) { s.client.reset() },
		upstream: []string{"close 1001", "fin"},
		end:      want{byClient, 0, "", relay.ClientGone},
	},
	{
		name:     "client vanishes inside a frame",
		in:       relayed,
		play:     func(s *stage) { s.client.send(s.client.part(text("abcdef"), 8)); s.client.Close() },
		upstream: []string{"torn", "..."},
		end:      want{byClient, 0, "", relay.ClientGone},
	},
	{
		name:     "client vanishes inside a message",
		in:       assembled,
		play:     func(s *stage) { s.client.send(first("abc")); s.client.Close() },
		upstream: []string{"close 1001", "fin"},
		end:      want{byClient, 0, "", relay.ClientGone},
	},
	{
		name: "client only stops sending",
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(text("question"))
			s.client.halfClose()
			s.upstream.expect("text question", "close 1001")
			s.upstream.send(text("answer"), closing(1001, ""))
		},
		client: []string{"text answer", "fin"}, upstream: fin,
		end: want{byClient, 0, "", relay.ClientGone},
	},
	breach("unmasked frame", func(w *wire) sent { return w.misfit(text("bad")) }),
	breach("reserved opcode", func(*wire) sent { return raw(0x83, 0x80, 1, 2, 3, 4) }),
	breach("reserved bit", func(*wire) sent { return raw(0xa1, 0x80, 1, 2, 3, 4) }),
	breach("continuation of nothing", func(*wire) sent { return last("bad") }),
	breach("fragmented ping", func(*wire) sent { return raw(0x09, 0x80, 1, 2, 3, 4) }),
	breach("close of one byte", func(*wire) sent { return raw(0x88, 0x81, 0, 0, 0, 0, 3) }),
	breach("close with 1005", func(*wire) sent { return raw(0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed) }),
	{
		name: "client breaks the protocol and upstream never closes", route: hasty,
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(raw(0x83, 0x80, 1, 2, 3, 4))
			s.upstream.expect("close 1002")
		},
		client: []string{"close 1002 protocol error", "fin"}, upstream: fin,
		end: want{byClient, 1002, "protocol error", relay.ClientProtocol},
	},
}

// breach is a client that breaks the protocol behind a good message: that
// one's answer comes first.
func breach(name string, bad func(*wire) sent) closeRow {
	return closeRow{
		name: "client breaks the protocol/" + name,
		play: func(s *stage) {
			s.upstream.mute = true
			s.client.send(text("good"), bad(s.client))
			s.upstream.expect("text good", "close 1002")
			s.upstream.send(text("answer"), closing(1002, ""))
		},
		client: []string{"text answer", "close 1002 protocol error", "fin"}, upstream: fin,
		end: want{byClient, 1002, "protocol error", relay.ClientProtocol},
	}
}

// Rows "upstream closes", "upstream lost or breaks the protocol, continuity
// off", "upstream lost inside a message already begun to the client".
var upstreamEnds = []closeRow{
	upstreamCloses(1000, "bye", ""),
	upstreamCloses(1001, "", ""),
	upstreamCloses(1012, "deploy", ""),
	upstreamCloses(3001, "no more", ""),
	upstreamCloses(0, "", ""),
	upstreamCloses(1000, "done", kept),
	upstreamCloses(3001, "no more", kept),
	upstreamCloses(0, "", kept),
	upstreamCloses(1001, "", "continuity: {on_close: [1012]}"),
	{
		name: "upstream closes and resets",
		play: func(s *stage) {
			s.upstream.send(text("a"), closing(3001, "no more"))
			s.upstream.reset()
		},
		client: []string{"text a", "close 3001 no more", "fin"},
		end:    want{byUpstream, 3001, "no more", relay.UpstreamClosed},
	},
	{
		name:     "upstream ends",
		play:     func(s *stage) { s.upstream.send(text("a")); s.upstream.halfClose() },
		client:   []string{"text a", "close 1012 upstream lost", "fin"},
		upstream: fin,
		end:      want{byUpstream, 1012, "upstream lost", relay.UpstreamLost},
	},
	{
		name:   "upstream resets",
		play:   func(s *stage) { s.upstream.reset() },
		client: []string{"close 1012 upstream lost", "fin"},
		end:    want{byUpstream, 1012, "upstream lost", relay.UpstreamLost},
	},
	{
		name:     "upstream ends inside a frame",
		in:       relayed,
		play:     func(s *stage) { s.upstream.send(text("a"), s.upstream.part(text("bcdef"), 4)); s.upstream.halfClose() },
		client:   []string{"text a", "torn", "rst"},
		upstream: []string{"..."},
		end:      want{byUpstream, 0, "", relay.UpstreamTorn},
	},
	{
		name:     "upstream ends inside a message",
		in:       relayed,
		play:     func(s *stage) { s.upstream.send(text("a"), first("b")); s.upstream.halfClose() },
		client:   []string{"text a", "text+ b", "rst"},
		upstream: []string{"..."},
		end:      want{byUpstream, 0, "", relay.UpstreamTorn},
	},
	{
		name:     "upstream ends inside a message that is not begun",
		in:       assembled,
		play:     func(s *stage) { s.upstream.send(text("a"), first("b")); s.upstream.halfClose() },
		client:   []string{"text a", "close 1012 upstream lost", "fin"},
		upstream: fin,
		end:      want{byUpstream, 1012, "upstream lost", relay.UpstreamLost},
	},
	upstreamBreaks("masked frame", func(w *wire) sent { return w.misfit(text("bad")) }),
	upstreamBreaks("reserved opcode", func(*wire) sent { return raw(0x83, 0x00) }),
	upstreamBreaks("reserved bit", func(*wire) sent { return raw(0xa1, 0x00) }),
	upstreamBreaks("continuation of nothing", func(*wire) sent { return last("bad") }),
	upstreamBreaks("long ping", func(*wire) sent { return raw(0x89, 0x7e, 0, 126) }),
	upstreamBreaks("close with 1006", func(*wire) sent { return raw(0x88, 0x02, 0x03, 0xee) }),
	upstreamBreaks("close of one byte", func(*wire) sent { return raw(0x88, 0x01, 0x03) }),
	{
		name:     "upstream breaks the protocol inside a message",
		in:       relayed,
		play:     func(s *stage) { s.upstream.send(first("a"), raw(0x83, 0x00)) },
		client:   []string{"text+ a", "rst"},
		upstream: []string{"close 1002", "fin"},
		end:      want{byUpstream, 0, "", relay.UpstreamTorn},
	},
}

func upstreamCloses(code int, reason, route string) closeRow {
	event := strings.TrimSpace(fmt.Sprintf("close %d %s", code, reason))
	if code == 0 {
		event = "close"
	}
	return closeRow{
		name: strings.TrimSpace(fmt.Sprintf("upstream closes with %d %s", code, route)), route: route,
		play:     func(s *stage) { s.upstream.send(text("a"), text("b"), closing(code, reason)) },
		client:   []string{"text a", "text b", event, "fin"},
		upstream: []string{event, "fin"},
		end:      want{byUpstream, code, reason, relay.UpstreamClosed},
	}
}

func upstreamBreaks(name string, bad func(*wire) sent) closeRow {
	return closeRow{
		name:     "upstream breaks the protocol/" + name,
		play:     func(s *stage) { s.upstream.send(text("good"), bad(s.upstream)) },
		client:   []string{"text good", "close 1011 upstream broke the protocol", "fin"},
		upstream: []string{"close 1002", "fin"},
		end:      want{byUpstream, 1011, "upstream broke the protocol", relay.UpstreamProtocol},
	}
}

// Rows of continuity: who comes back, and who gives up.
var continuityEnds = []closeRow{
	survives("a close that means come back", []string{"close 1001 moving", "fin"}, func(u *wire) { u.send(closing(1001, "moving")) }),
	survives("a close of 1012", []string{"close 1012", "fin"}, func(u *wire) { u.send(closing(1012, "")) }),
	survives("the end of the connection", fin, func(u *wire) { u.halfClose() }),
	survives("a reset", nil, func(u *wire) { u.reset() }),
	survives("an end inside a frame", nil, func(u *wire) { u.send(u.part(text("abcdef"), 4)); u.reset() }),
	survives("an end inside a message", fin, func(u *wire) { u.send(first("lost")); u.halfClose() }),
	survives("a break of the protocol", []string{"close 1002", "fin"}, func(u *wire) { u.send(raw(0x83, 0x00)) }),
	redialAnswered("403", false), redialAnswered("401", false), redialAnswered("404", false),
	redialAnswered("408", true), redialAnswered("429", true), redialAnswered("500", true), redialAnswered("503", true),
	renegotiated("another subprotocol", "Sec-WebSocket-Protocol: two"),
	renegotiated("no subprotocol", "X-Nothing: here"),
	{
		name: "hold expires", route: "continuity: {hold: 200ms, backoff: {min: 1ms, max: 10ms}}",
		play: func(s *stage) {
			s.refuse()
			s.upstream.reset()
		},
		client: []string{"close 1013 no upstream, try again later", "fin"},
		end:    want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp},
	},
	{
		name: "hold expires during a dial", route: "continuity: {hold: 200ms, backoff: {min: 1ms, max: 10ms}}",
		play: func(s *stage) {
			s.upstream.reset()
			s.accept() // and says nothing
		},
		client: []string{"close 1013 no upstream, try again later", "fin"},
		end:    want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp},
	},
	{
		name: "restart budget spent", route: "continuity: {max_restarts: 1, backoff: {min: 1ms, max: 10ms}}",
		play: func(s *stage) {
			s.upstream.reset()
			s.next()
			s.upstream.send(text("a"))
			s.upstream.halfClose()
		},
		client: []string{"text a", "close 1013 no upstream, try again later", "fin"}, upstream: fin,
		end: want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp},
	},
	{
		name: "buffer full", route: "continuity: {buffer: 1KiB, on_full: close, hold: 20s, backoff: {min: 1ms, max: 10ms}}",
		play: func(s *stage) {
			s.upstream.reset()
			s.accept() // the client is held while this one says nothing
			s.client.send(binary(600), binary(600))
		},
		client: []string{"close 1013 no upstream, try again later", "fin"},
		end:    want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp},
	},
	{
		name: "no pool left", route: kept,
		play: func(s *stage) {
			other := s.parse("routes: [{path: /*, upstream: other}]\nupstreams: {other: {targets: [\"ws://127.0.0.1:9\"]}}\n")
			if err := s.proxy.Reload(other); err != nil {
				s.t.Fatal(err)
			}
			s.upstream.send(text("a"))
			s.upstream.halfClose()
		},
		client: []string{"text a", "close 1013 no upstream, try again later", "fin"}, upstream: fin,
		end: want{byUpstream, 1013, "no upstream, try again later", relay.GaveUp},
	},
	{
		name: "upstream lost inside a large message to the client", in: relayed,
		route: "continuity: {whole: 1KiB}",
		play: func(s *stage) {
			s.upstream.send(text("a"), s.upstream.part(binary(4096), 2000))
			s.client.expect("text a")
			s.upstream.halfClose()
		},
		client: []string{"torn", "rst"}, upstream: []string{"..."},
		end: want{byUpstream, 0, "", relay.UpstreamTorn},
	},
	{
		name: "upstream lost inside a large client message", in: relayed,
		route: lines("continuity: {whole: 1KiB, backoff: {min: 1ms, max: 10ms}}", hasty),
		play: func(s *stage) {
			s.client.mute = true // a close frame inside its frame would be data
			s.client.send(text("a"), s.client.part(binary(4096), 2000))
			s.upstream.expect("text a")
			s.upstream.SetReadDeadline(time.Now().Add(patience))
			if _, err := s.upstream.in.Peek(2000); err != nil {
				s.t.Fatal(err)
			}
			s.upstream.reset()
		},
		client: []string{"close 1012 upstream lost inside a message", "fin"},
		end:    want{byUpstream, 1012, "upstream lost inside a message", relay.ClientTorn},
	},
	{
		name: "client closes while held", route: kept,
		play: func(s *stage) {
			s.upstream.reset()
			s.accept() // and says nothing
			s.client.send(closing(1000, "bye"))
		},
		client: []string{"close 1000 bye", "fin"},
		end:    want{byClient, 1000, "bye", relay.ClientClosed},
	},
	{
		name: "client vanishes while held", route: kept,
		play: func(s *stage) {
			s.upstream.reset()
			s.accept()
			s.client.reset()
		},
		end: want{byClient, 0, "", relay.ClientGone},
	},
	{
		name: "client breaks the protocol while held", route: kept,
		play: func(s *stage) {
			s.upstream.reset()
			s.accept()
			s.client.send(raw(0x83, 0x80, 1, 2, 3, 4))
		},
		client: []string{"close 1002 protocol error", "fin"},
		end:    want{byClient, 1002, "protocol error", relay.ClientProtocol},
	},
	{
		name: "kick while held", route: kept,
		play: func(s *stage) {
			s.upstream.reset()
			s.accept()
			s.session().Close(0, "")
		},
		client: []string{"close 1008 closed by the operator", "fin"},
		end:    want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
}

// survives is a client that does not notice the loss of its upstream: what
// that said before arrives, and what the client says next goes to another.
func survives(name string, left []string, lose func(*wire)) closeRow {
	return closeRow{
		name: "survives " + name, route: kept,
		play: func(s *stage) {
			old := s.upstream
			s.client.send(text("one"))
			old.expect("text one")
			old.send(text("two"))
			lose(old)
			s.next()
			if left != nil {
				if got := old.rest(); !saw(got, left) {
					s.t.Errorf("lost upstream saw %q, want %q", got, left)
				}
			}
			s.client.expect("text two")
			s.client.send(text("three"))
			s.upstream.expect("text three")
			s.upstream.send(text("four"))
			s.client.expect("text four")
			s.client.send(closing(1000, "bye"))
			s.upstream.expect("close 1000 bye")
		},
		client: []string{"close 1000 bye", "fin"}, upstream: fin,
		end: want{byClient, 1000, "bye", relay.ClientClosed},
	}
}

// redialAnswered is a session whose upstream is lost and whose redial is
// refused with a status, which may mean to try again.
func redialAnswered(status string, again bool) closeRow {
	row := closeRow{
		name: "redial refused with " + status, route: kept,
		client: []string{"close 1012 upstream refused the session", "fin"},
		end:    want{byUpstream, 1012, "upstream refused the session", relay.RedialRefused},
	}
	if again {
		row.client, row.upstream = []string{"close 3001", "fin"}, []string{"close 3001", "fin"}
		row.end = want{byUpstream, 3001, "", relay.UpstreamClosed}
	}
	row.play = func(s *stage) {
		s.upstream.reset()
		refusing := s.accept()
		refusing.say("HTTP/1.1 " + status + " No\r\nContent-Length: 3\r\n\r\nno\n")
		if again {
			s.next()
			s.upstream.send(closing(3001, ""))
		}
		refusing.expect("fin")
	}
	return row
}

// renegotiated is a redial that is answered with something else than the
// client was told.
func renegotiated(name, header string) closeRow {
	return closeRow{
		name: "redial answered with " + name, route: kept,
		in: []mode{negotiated(inRelay), negotiated(inMessage), negotiated(inDeflate)},
		play: func(s *stage) {
			s.upstream.reset()
			s.agree = []string{header}
			s.next()
		},
		client:   []string{"close 1012 upstream refused the session", "fin"},
		upstream: []string{"..."},
		end:      want{byUpstream, 1012, "upstream refused the session", relay.RedialRefused},
	}
}

// negotiated is a mode in which a subprotocol was agreed on.
func negotiated(m mode) mode {
	m.offer = append(slices.Clone(m.offer), "Sec-WebSocket-Protocol: one, two")
	m.agree = append(slices.Clone(m.agree), "Sec-WebSocket-Protocol: one")
	return m
}

// Rows "message too big", "bad UTF-8", "on_limit: close".
var limitEnds = []closeRow{
	{
		// Only the header is sent: it is refused before its payload comes.
		name: "client's message too big", route: "limits: {message_size: 1KiB}",
		play:     func(s *stage) { s.client.send(binary(1024), s.client.part(binary(1025), 8)) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"binary 1024B", "close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client announces a message of a terabyte", route: "limits: {message_size: 1KiB}",
		play:     func(s *stage) { s.client.send(raw(0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4)) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client announces a message of a terabyte, no limit set", in: assembled,
		play:     func(s *stage) { s.client.send(raw(0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4)) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client's fragments too big", in: relayed, route: "limits: {message_size: 4}",
		play:     func(s *stage) { s.client.send(first("abc"), s.client.part(last("de"), 6)) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"text+ abc", "close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client's fragments too big, assembled", in: assembled, route: "limits: {message_size: 4}",
		play:     func(s *stage) { s.client.send(first("abc"), s.client.part(last("de"), 6)) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client's message too big once inflated", in: []mode{inDeflate}, route: "limits: {message_size: 64KiB}",
		play:     func(s *stage) { s.client.send(deflated(make([]byte, 1<<20))) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "upstream's message too big", route: "limits: {message_size: 1KiB}",
		play:     func(s *stage) { s.upstream.send(binary(1024), s.upstream.part(binary(1025), 4)) },
		client:   []string{"binary 1024B", "close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "upstream's fragments too big", in: relayed, route: "limits: {message_size: 4}",
		play:     func(s *stage) { s.upstream.send(first("abc"), s.upstream.part(last("de"), 2)) },
		client:   []string{"text+ abc", "close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "upstream's message too big once inflated", in: []mode{inDeflate}, route: "limits: {message_size: 64KiB}",
		play:     func(s *stage) { s.upstream.send(deflated(make([]byte, 1<<20))) },
		client:   []string{"close 1009 message too big", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1009, "message too big", relay.TooBig},
	},
	{
		name: "client's text not UTF-8", in: assembled,
		play:     func(s *stage) { s.client.send(text("good"), text("bad \xff")) },
		client:   []string{"close 1007 text is not UTF-8", "fin"},
		upstream: []string{"text good", "close 1001", "fin"},
		end:      want{byStent, 1007, "text is not UTF-8", relay.InvalidText},
	},
	{
		name: "client's inflated text not UTF-8", in: []mode{inDeflate},
		play:     func(s *stage) { s.client.send(deflated([]byte("bad \xff"))) },
		client:   []string{"close 1007 text is not UTF-8", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1007, "text is not UTF-8", relay.InvalidText},
	},
	{
		name: "client's close reason not UTF-8", in: assembled,
		play:     func(s *stage) { s.client.send(closing(3000, "bad \xff")) },
		client:   []string{"close 1007 text is not UTF-8", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1007, "text is not UTF-8", relay.InvalidText},
	},
	{
		name: "upstream's text not UTF-8", in: assembled,
		play:     func(s *stage) { s.upstream.send(text("good"), text("bad \xff")) },
		client:   []string{"text good", "close 1007 text is not UTF-8", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1007, "text is not UTF-8", relay.InvalidText},
	},
	{
		name: "text that nobody reads is nobody's business", in: relayed,
		play: func(s *stage) {
			s.client.send(text("bad \xff"))
			s.upstream.expect("text bad \xff")
			s.upstream.send(text("bad \xfe"), closing(1000, ""))
		},
		client: []string{"text bad \xfe", "close 1000", "fin"}, upstream: []string{"close 1000", "fin"},
		end: want{byUpstream, 1000, "", relay.UpstreamClosed},
	},
	{
		name: "too many messages", route: "limits: {messages_per_second: 1, burst: 2s, on_limit: close}",
		play:     func(s *stage) { s.client.send(text("a"), text("b"), text("c")) },
		client:   []string{"close 1008 rate limit", "fin"},
		upstream: []string{"text a", "text b", "close 1001", "fin"},
		end:      want{byStent, 1008, "rate limit", relay.OverLimit},
	},
	{
		name: "too many bytes", route: "limits: {bytes_per_second: 100, on_limit: close}",
		play:     func(s *stage) { s.client.send(binary(300), text("b")) },
		client:   []string{"close 1008 rate limit", "fin"},
		upstream: []string{"binary 300B", "close 1001", "fin"},
		end:      want{byStent, 1008, "rate limit", relay.OverLimit},
	},
}

// stopper stops, or panics, when it is told to.
func stopper(_ *Session, m Message) Result {
	switch string(m.Data) {
	case "stop":
		return Stop(0, "")
	case "stop 4001":
		return Stop(4001, "enough")
	case "stop long":
		return Stop(4002, strings.Repeat("é", 100))
	case "stop 1006":
		return Stop(1006, "never on the wire")
	case "panic":
		panic("a handler's own fault")
	}
	return OK()
}

// Rows "handler panic" and Stop.
var handlerEnds = []closeRow{
	stops(Client, "stop", "close 1000", want{byStent, 1000, "", relay.HandlerStopped}),
	stops(Upstream, "stop", "close 1000", want{byStent, 1000, "", relay.HandlerStopped}),
	stops(Client, "stop 4001", "close 4001 enough", want{byStent, 4001, "enough", relay.HandlerStopped}),
	stops(Upstream, "stop 4001", "close 4001 enough", want{byStent, 4001, "enough", relay.HandlerStopped}),
	stops(Client, "stop long", "close 4002 "+strings.Repeat("é", 61), want{byStent, 4002, strings.Repeat("é", 61), relay.HandlerStopped}),
	stops(Client, "stop 1006", "close 1011 internal error", want{byStent, 1011, "internal error", relay.HandlerFailed}),
	stops(Client, "panic", "close 1011 internal error", want{byStent, 1011, "internal error", relay.HandlerFailed}),
	stops(Upstream, "panic", "close 1011 internal error", want{byStent, 1011, "internal error", relay.HandlerFailed}),
}

// stops is a handler that ends the session at one side's message.
func stops(from Side, say, event string, end want) closeRow {
	row := closeRow{
		name: fmt.Sprintf("handler's %s at the %s's message", say, from), in: assembled, own: stopper,
		client: []string{event, "fin"}, upstream: []string{"close 1001", "fin"},
		end: end,
	}
	if from == Client {
		row.upstream = []string{"text good", "close 1001", "fin"}
		row.play = func(s *stage) { s.client.send(text("good"), text(say), text("too late")) }
	} else {
		row.client = []string{"text good", event, "fin"}
		row.play = func(s *stage) { s.upstream.send(text("good"), text(say), text("too late")) }
	}
	return row
}

// Rows of keepalive, write, idle and lifetime.
var timeEnds = []closeRow{
	{
		name: "client silent", route: "keepalive: {interval: 50ms, timeout: 300ms}",
		play:     func(s *stage) { s.client.mute = true },
		client:   []string{"ping ~", "close 1001 nothing heard", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1001, "nothing heard", relay.ClientSilent},
	},
	{
		name: "client silent while held", route: lines(kept, "keepalive: {interval: 50ms, timeout: 300ms}"),
		play: func(s *stage) {
			s.client.mute = true
			s.upstream.reset()
			s.accept() // and says nothing
		},
		client: []string{"ping ~", "close 1001 nothing heard", "fin"},
		end:    want{byStent, 1001, "nothing heard", relay.ClientSilent},
	},
	{
		name: "client takes no data", route: "timeouts: {write: 200ms, close: 300ms}",
		play: func(s *stage) {
			shrink(s.t, s.client)
			go s.upstream.flood(64 << 20)
			s.over()
		},
		client:   []string{"...", "torn", "rst"},
		upstream: []string{"..."},
		end:      want{byStent, 0, "", relay.ClientStalled},
	},
	{
		name: "idle", route: "timeouts: {idle: 200ms, close: 2s}",
		play:     func(s *stage) { s.client.send(ping("pings are no messages")); s.upstream.send(text("a")) },
		client:   []string{"...", "text a", "...", "close 1001 idle", "fin"},
		upstream: []string{"...", "close 1001", "fin"},
		end:      want{byStent, 1001, "idle", relay.Idle},
	},
	{
		name: "lifetime", route: "timeouts: {lifetime: 1s, close: 5s}",
		play:     func(s *stage) { s.client.send(text("a")) },
		client:   []string{"close 1001 lifetime over", "fin"},
		upstream: []string{"text a", "close 1001", "fin"},
		end:      want{byStent, 1001, "lifetime over", relay.Lifetime},
	},
	{
		name: "lifetime while held", route: lines(kept, "timeouts: {lifetime: 300ms, close: 5s}"),
		play:   func(s *stage) { s.refuse(); s.upstream.reset() },
		client: []string{"close 1001 lifetime over", "fin"},
		end:    want{byStent, 1001, "lifetime over", relay.Lifetime},
	},
	{
		name: "upstream silent", route: "keepalive: {interval: 50ms, timeout: 300ms}",
		play:     func(s *stage) { s.upstream.mute = true },
		client:   []string{"close 1012 upstream lost", "fin"},
		upstream: []string{"ping ~", "close 1001", "fin"},
		end:      want{byUpstream, 1012, "upstream lost", relay.UpstreamLost},
	},
	{
		name: "survives an upstream that falls silent", route: lines(kept, "keepalive: {interval: 50ms, timeout: 300ms}"),
		play: func(s *stage) {
			old := s.upstream
			old.mute = true
			// The client has to answer pings while it waits.
			answering := make(chan string)
			go func() { answering <- s.client.message() }()
			s.next()
			if got, want := old.rest(), []string{"ping ~", "close 1001", "fin"}; !saw(got, want) {
				s.t.Errorf("silent upstream saw %q, want %q", got, want)
			}
			s.upstream.send(text("hello"), closing(3001, ""))
			if got := <-answering; got != "text hello" {
				s.t.Errorf("client got %q", got)
			}
		},
		client: []string{"close 3001", "fin"}, upstream: []string{"close 3001", "fin"},
		end: want{byUpstream, 3001, "", relay.UpstreamClosed},
	},
	{
		name: "survives an upstream that takes no data", route: lines(kept, "timeouts: {write: 200ms, close: 1s}"),
		play: func(s *stage) {
			old := s.upstream
			shrink(s.t, old)
			flooded := make(chan error, 1)
			go func() { flooded <- s.client.flood(16 << 20) }()
			s.next()
			old.Close()
			// What the lost one had is lost; what follows is whole.
			for range 20 {
				s.upstream.expect("binary 65536B")
			}
			go io.Copy(io.Discard, s.upstream.in)
			if err := <-flooded; err != nil {
				s.t.Errorf("flood: %v", err)
			}
			s.session().Close(0, "")
		},
		client: []string{"close 1008 closed by the operator", "fin"},
		end:    want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
	{
		name: "upstream takes no data", route: "timeouts: {write: 200ms, close: 1s}",
		play: func(s *stage) {
			go s.client.flood(64 << 20)
			s.client.expect("close 1012 upstream lost")
		},
		client:   []string{"..."},
		upstream: []string{"...", "torn", "..."},
		end:      want{byUpstream, 1012, "upstream lost", relay.UpstreamLost},
	},
}

// message reads past pings to the next message.
func (w *wire) message() string {
	for {
		if event := w.next(); event != "ping ~" {
			return event
		}
	}
}

// shrink keeps the kernel from taking much for this end.
func shrink(t *testing.T, w *wire) {
	if err := w.tcp().SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
}

// Rows of the operator: kick and drain.
var ownEnds = []closeRow{
	{
		name:     "short of memory",
		play:     func(s *stage) { s.session().end(End{Cause: relay.Shed}) },
		client:   []string{"close 1013 proxy is short of memory", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1013, "proxy is short of memory", relay.Shed},
	},
	{
		name:     "kick",
		play:     func(s *stage) { s.session().Close(0, "") },
		client:   []string{"close 1008 closed by the operator", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
	{
		name:     "kick with a code",
		play:     func(s *stage) { s.session().Close(4000, "out") },
		client:   []string{"close 4000 out", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 4000, "out", relay.Kicked},
	},
	{
		name:     "kick with a code that is never sent",
		play:     func(s *stage) { s.session().Close(1006, "") },
		client:   []string{"close 1008 closed by the operator", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
	{
		name:     "kick a client that never answers",
		route:    hasty,
		play:     func(s *stage) { s.client.mute, s.upstream.mute = true, true; s.session().Close(0, "") },
		client:   []string{"close 1008 closed by the operator", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
	{
		// The client is told at the next boundary of the upstream's frames.
		name: "kick inside a frame to the client", in: relayed,
		play: func(s *stage) {
			frame := binary(5000)
			s.upstream.send(s.upstream.part(frame, 3000))
			s.client.SetReadDeadline(time.Now().Add(patience))
			if _, err := s.client.in.Peek(3000); err != nil {
				s.t.Fatal(err)
			}
			s.session().Close(0, "")
			s.upstream.send(s.upstream.beyond(frame, 3000))
		},
		client:   []string{"binary 5000B", "close 1008 closed by the operator", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1008, "closed by the operator", relay.Kicked},
	},
	{
		name: "kick inside a frame to the client that never ends", in: relayed, route: hasty,
		play: func(s *stage) {
			s.upstream.send(s.upstream.part(binary(5000), 3000))
			s.client.SetReadDeadline(time.Now().Add(patience))
			if _, err := s.client.in.Peek(3000); err != nil {
				s.t.Fatal(err)
			}
			s.session().Close(0, "")
		},
		client:   []string{"torn", "rst"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 0, "", relay.Kicked},
	},
	{
		name:     "drain",
		play:     func(s *stage) { s.stop() },
		client:   []string{"close 1012 proxy is restarting", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1012, "proxy is restarting", relay.Draining},
	},
	{
		name: "drain while held", route: kept,
		play:   func(s *stage) { s.upstream.reset(); s.accept(); s.stop() },
		client: []string{"close 1012 proxy is restarting", "fin"},
		end:    want{byStent, 1012, "proxy is restarting", relay.Draining},
	},
	{
		name:     "end of the tree without a drain",
		play:     func(s *stage) { s.proxy.Abort() },
		client:   []string{"close 1012 proxy is restarting", "fin"},
		upstream: []string{"close 1001", "fin"},
		end:      want{byStent, 1012, "proxy is restarting", relay.Draining},
	},
}

// Every row of the table is well-formed, whatever plays it.
func TestCloseRules(t *testing.T) {
	for cause := relay.ClientClosed; int(cause) < relay.Causes; cause++ {
		rule := closeTable[cause]
		if rule.Initiator != byClient && rule.Initiator != byUpstream && rule.Initiator != byStent {
			t.Errorf("%s: initiator %q", cause, rule.Initiator)
		}
		for _, code := range []int{rule.Client, rule.Upstream} {
			switch code {
			case 1000, 1004, 1005, 1006, 1014, 1015:
				t.Errorf("%s: code %d is none of ours", cause, code)
			}
		}
		if len(rule.Reason) > 123 || !bytes.Equal([]byte(rule.Reason), bytes.ToValidUTF8([]byte(rule.Reason), nil)) {
			t.Errorf("%s: reason %q", cause, rule.Reason)
		}
		if rule.Abort && rule.Client != 0 {
			t.Errorf("%s: a client that is aborted gets no code", cause)
		}
	}
}
