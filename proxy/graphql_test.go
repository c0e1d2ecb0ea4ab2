package proxy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/relay"
)

// What the two sides say; names are ids.
const (
	gqlInit = `{"type":"connection_init","payload":{"token":"t"}}`
	gqlAck  = `{"type":"connection_ack"}`
)

func subscribe(id, query string) string {
	b, _ := json.Marshal(query)
	return fmt.Sprintf(`{"id":%q,"type":"subscribe","payload":{"query":%s}}`, id, b)
}

func watching(id string) string { return subscribe(id, "subscription { news }") }
func mutating(id string) string { return subscribe(id, "mutation { pay }") }
func complete(id string) string { return fmt.Sprintf(`{"id":%q,"type":"complete"}`, id) }
func nextFor(id string) string {
	return fmt.Sprintf(`{"id":%q,"type":"next","payload":{"data":{}}}`, id)
}
func failed(id string) string { return fmt.Sprintf(`{"id":%q,"type":"error","payload":[]}`, id) }
func lost(id string) string   { return string(operationLost(id)) }

// newGraphQLStage is a stage whose sides speak graphql-transport-ws.
func newGraphQLStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t, lines("protocol: graphql-transport-ws", kept), "", testHandlers)
	s.offer = []string{"Sec-WebSocket-Protocol: graphql-transport-ws, graphql-ws"}
	s.agree = []string{"Sec-WebSocket-Protocol: graphql-transport-ws"}
	s.open()
	return s
}

// told expects payloads of any length in full, where expect tells only the
// length of long ones.
func (w *wire) told(want ...string) {
	w.t.Helper()
	for i := range want {
		if got := string(readPayload(w.t, w)); got != want[i] {
			w.t.Fatalf("message %d: got %s, want %s", i, got, want[i])
		}
	}
}

func (w *wire) tell(messages ...string) {
	w.t.Helper()
	for _, m := range messages {
		w.send(text(m))
	}
}

// greet plays the opening of the protocol.
func (s *stage) greet() {
	s.t.Helper()
	s.client.tell(gqlInit)
	s.upstream.told(gqlInit)
	s.upstream.tell(gqlAck)
	s.client.told(gqlAck)
}

// regreet loses the upstream and opens the next, which gets the client's
// connection_init; its acknowledgement is swallowed.
func (s *stage) regreet() {
	s.t.Helper()
	s.upstream.reset()
	s.next()
	s.upstream.told(gqlInit)
	s.upstream.tell(gqlAck)
}

// same checks that both directions work and that nothing is on its way.
func (s *stage) same() {
	s.t.Helper()
	s.client.tell(`{"type":"ping"}`)
	s.upstream.told(`{"type":"ping"}`)
	s.upstream.tell(`{"type":"pong"}`)
	s.client.told(`{"type":"pong"}`)
}

func TestGraphQLReplay(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(s *stage)
	}{
		{"nothing said", func(s *stage) {
			s.upstream.reset()
			s.next()
			s.greet()
		}},
		{"greeting alone", func(s *stage) {
			s.greet()
			s.regreet()
			s.regreet()
		}},
		{"subscriptions under their ids, in order", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"), watching("b"), watching("c"))
			s.upstream.told(watching("a"), watching("b"), watching("c"))
			s.regreet()
			s.upstream.told(watching("a"), watching("b"), watching("c"))
			s.upstream.tell(nextFor("b"))
			s.client.told(nextFor("b"))
		}},
		{"only after the acknowledgement", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"))
			s.upstream.told(watching("a"))
			s.upstream.reset()
			s.next()
			s.upstream.told(gqlInit)
			s.client.tell(watching("b")) // waits, too
			s.upstream.tell(`{"type":"ping"}`)
			s.client.told(`{"type":"ping"}`)
			s.client.send(ping("b was read"))
			s.client.expect("pong b was read")
			s.upstream.send(ping("and nothing sent"))
			s.upstream.expect("pong and nothing sent")
			s.upstream.tell(gqlAck)
			s.upstream.told(watching("a"), watching("b"))
		}},
		{"completed by the upstream", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"), watching("b"), watching("c"))
			s.upstream.told(watching("a"), watching("b"), watching("c"))
			s.upstream.tell(nextFor("a"), complete("a"), failed("b"))
			s.client.told(nextFor("a"), complete("a"), failed("b"))
			s.regreet()
			s.upstream.told(watching("c"))
		}},
		{"completed by the client", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"), watching("b"), complete("a"))
			s.upstream.told(watching("a"), watching("b"), complete("a"))
			s.regreet()
			s.upstream.told(watching("b"))
		}},
		{"completed while held", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"))
			s.upstream.told(watching("a"))
			next := s.hold()
			s.client.tell(complete("a"))
			s.resume(next)
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.upstream.told(watching("a"), complete("a"))
			s.regreet()
		}},
		{"subscribed while held goes once", func(s *stage) {
			s.greet()
			next := s.hold()
			s.client.tell(watching("a"))
			s.resume(next)
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.upstream.told(watching("a"))
			s.same()
			s.regreet()
			s.upstream.told(watching("a"))
		}},
		{"an id used again while held", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"))
			s.upstream.told(watching("a"))
			next := s.hold()
			s.client.tell(complete("a"), subscribe("a", "subscription { other }"))
			s.resume(next)
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.upstream.told(watching("a"), complete("a"), subscribe("a", "subscription { other }"))
			s.regreet()
			s.upstream.told(subscribe("a", "subscription { other }"))
		}},
		{"queries are repeated", func(s *stage) {
			s.greet()
			s.client.tell(subscribe("q", "{ slow }"))
			s.upstream.told(subscribe("q", "{ slow }"))
			s.regreet()
			s.upstream.told(subscribe("q", "{ slow }"))
			s.upstream.tell(complete("q"))
			s.client.told(complete("q"))
		}},
		{"mutations are not, and their client is told", func(s *stage) {
			s.greet()
			s.client.tell(mutating("m"), watching("a"), subscribe("p", ""))
			s.upstream.told(mutating("m"), watching("a"), subscribe("p", ""))
			s.regreet()
			s.upstream.told(watching("a"))
			s.client.told(lost("m"), lost("p"))
			s.regreet()
			s.upstream.told(watching("a"))
		}},
		{"a mutation said while held goes once", func(s *stage) {
			s.greet()
			next := s.hold()
			s.client.tell(mutating("m"))
			s.resume(next)
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.upstream.told(mutating("m"))
			s.upstream.tell(complete("m"))
			s.client.told(complete("m"))
			s.regreet()
		}},
		{"lost before the acknowledgement", func(s *stage) {
			s.client.tell(gqlInit)
			s.upstream.told(gqlInit)
			s.upstream.reset()
			s.next()
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.client.told(gqlAck)
			s.regreet()
		}},
		{"lost again before the second acknowledgement", func(s *stage) {
			s.greet()
			s.client.tell(watching("a"))
			s.upstream.told(watching("a"))
			s.upstream.reset()
			s.next()
			s.upstream.told(gqlInit)
			s.regreet()
			s.upstream.told(watching("a"))
		}},
		{"init said while held", func(s *stage) {
			next := s.hold()
			s.client.tell(gqlInit)
			s.resume(next)
			s.upstream.told(gqlInit)
			s.upstream.tell(gqlAck)
			s.client.told(gqlAck)
			s.regreet()
		}},
		{"init never said", func(s *stage) {
			s.client.tell(`{"type":"ping"}`)
			s.upstream.told(`{"type":"ping"}`)
			s.upstream.reset()
			s.next()
		}},
		{"the next upstream forbids it", func(s *stage) {
			s.greet()
			s.upstream.reset()
			s.next()
			s.upstream.told(gqlInit)
			s.upstream.send(closing(4403, "Forbidden"))
			s.client.expect("close 4403 Forbidden", "fin")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newGraphQLStage(t)
			tt.play(s)
			if !strings.Contains(tt.name, "forbids") {
				s.same()
			}
		})
	}
}

// Without continuity nothing is swallowed, and on another protocol neither.
func TestGraphQLElsewhere(t *testing.T) {
	for _, route := range []string{
		"protocol: graphql-transport-ws", lines("handlers: [pass]", kept),
		lines("protocol: graphql-transport-ws", kept), // without its subprotocol
	} {
		s := newStage(t, route, "", testHandlers)
		s.open()
		s.upstream.tell(gqlAck, gqlAck)
		s.client.told(gqlAck, gqlAck)
	}
}

// A client of another subprotocol is not held, for nobody knows its
// operations: it connects again by itself.
func TestGraphQLOfAnotherSubprotocol(t *testing.T) {
	const start = `{"id":"1","type":"start","payload":{"query":"subscription { a }"}}`
	for _, agreed := range []string{"graphql-ws", ""} {
		for _, way := range []struct {
			name string
			lose func(s *stage)
		}{
			{"reset", func(s *stage) { s.upstream.reset() }},
			{"closed", func(s *stage) {
				s.upstream.send(closing(1001, ""))
				s.upstream.expect("close 1001")
				s.upstream.Close()
			}},
			{"moved", func(s *stage) {
				s.session().link.Move()
				s.upstream.expect("close 1001")
				s.upstream.Close()
			}},
		} {
			t.Run(agreed+" "+way.name, func(t *testing.T) {
				t.Parallel()
				s := newStage(t, lines("protocol: graphql-transport-ws", kept), "", testHandlers)
				if agreed != "" {
					s.offer = []string{"Sec-WebSocket-Protocol: graphql-transport-ws, graphql-ws"}
					s.agree = []string{"Sec-WebSocket-Protocol: " + agreed}
				}
				s.open()
				s.greet()
				s.client.tell(start)
				s.upstream.told(start)
				if s.session().movable() {
					t.Error("the session would be moved")
				}
				way.lose(s)
				s.client.expect("close 1012 upstream lost", "fin")
				s.over()
			})
		}
	}
	s := newStage(t, lines("protocol: graphql-transport-ws", kept), "", testHandlers)
	s.open()
	s.proxy.CloseOn(s.session().target.Load())
	s.client.expect("close 1012 backend is draining", "fin")
}

// An answer may come before it is known that the upstream has taken all of
// the question.
func TestGraphQLAnsweredEarly(t *testing.T) {
	g := new(graphQL)
	g.fromClient(Message{Type: Text, Data: []byte(mutating("m"))})
	g.fromClient(Message{Type: Text, Data: []byte(watching("a"))})
	g.fromUpstream(Message{Type: Text, Data: []byte(complete("m"))})
	g.HandedOver(Text, []byte(mutating("m")))
	g.HandedOver(Text, []byte(watching("a")))
	again := g.Replay()
	if len(again) != 1 || string(again[0].Data) != watching("a") {
		t.Errorf("replays %s", again)
	}
	if len(g.pending) != 0 {
		t.Errorf("still pending: %v", g.pending)
	}
}

// What is remembered of a session is bounded, and ids that have ended leave
// nothing behind.
func TestGraphQLRemembersLittle(t *testing.T) {
	g := new(graphQL)
	say := func(m string) {
		g.fromClient(Message{Type: Text, Data: []byte(m)})
		g.HandedOver(Text, []byte(m))
	}
	for i := range 10_000 {
		say(watching(fmt.Sprint(i)))
		g.fromUpstream(Message{Type: Text, Data: []byte(complete(fmt.Sprint(i)))})
	}
	if len(g.active) != 0 || len(g.pending) != 0 || g.remembers != 0 || g.needs != 0 {
		t.Errorf("%d active, %d pending, %d and %d bytes", len(g.active), len(g.pending), g.remembers, g.needs)
	}
	for range 100 {
		say(watching("same"))
	}
	if want := len(watching("same")); g.remembers != want {
		t.Errorf("one operation takes %d bytes, want %d", g.remembers, want)
	}
	long := "subscription { " + strings.Repeat("x", 100_000) + " }"
	for i := range 20 {
		say(subscribe(fmt.Sprint(i), long))
	}
	if g.remembers > maxOperations {
		t.Errorf("%d bytes are remembered, want %d at most", g.remembers, maxOperations)
	}
	repeatable := 0
	for _, op := range g.active {
		if op.repeatable {
			repeatable++
		}
	}
	if want := maxOperations/len(subscribe("10", long)) + 1; repeatable != want {
		t.Errorf("%d operations can be repeated, want %d", repeatable, want)
	}
	if g.beyond {
		t.Error("operations that can be left out have made the session a lost one")
	}
}

// What can't be left out is bounded, too, whether an upstream has it or not
// yet, and a session beyond that is brought to no other one.
func TestGraphQLIsBounded(t *testing.T) {
	long := strings.Repeat("i", maxNeeds/4)
	for _, tt := range []struct {
		name  string
		times int
		say   func(i int) string
	}{
		{"many mutations", maxNeeds / idSize, func(i int) string { return mutating(fmt.Sprint(i)) }},
		{"long ids", 10, func(i int) string { return mutating(fmt.Sprint(i, long)) }},
		{"long ids of subscriptions", 10, func(i int) string { return watching(fmt.Sprint(i, long)) }},
	} {
		for _, taken := range []bool{true, false} {
			g := new(graphQL)
			for i := range tt.times {
				m := Message{Type: Text, Data: []byte(tt.say(i))}
				g.fromClient(m)
				if taken {
					g.HandedOver(Text, m.Data)
				}
			}
			size := 0
			for id, op := range g.active {
				size += idSize + len(id) + len(op.message)
			}
			for id := range g.pending {
				size += idSize + len(id)
			}
			if size > maxOperations+maxNeeds || size != g.remembers+g.needs || !g.beyond {
				t.Errorf("%s, taken %t: %d bytes are remembered, %d counted, beyond the bound %t", tt.name, taken, size, g.remembers+g.needs, g.beyond)
			}
		}
	}
	for _, say := range []func() string{
		func() string { return mutating(strings.Repeat("i", maxNeeds)) },
		func() string { return `{"type":"connection_init","payload":"` + strings.Repeat("i", maxNeeds) + `"}` },
	} {
		s := newGraphQLStage(t)
		s.client.tell(say())
		s.upstream.told(say())
		s.upstream.reset()
		s.client.expect("close 1012 upstream lost", "fin")
		s.over()
	}
}

// A client that can't be told what was lost would wait for good: it is closed.
func TestGraphQLClientThatIsNotTold(t *testing.T) {
	link := relay.New(relay.Session{Policy: &relay.Policy{Rules: &closeTable}}) // whose client takes nothing yet
	g := &graphQL{session: &Session{link: link, route: &route{count: newMetrics().route("/*")}}}
	g.HandedOver(Text, []byte(mutating("m")))
	for size := 1 << 20; size > 0; size /= 2 {
		for link.Push(Client, Binary, make([]byte, size)) != Full {
		}
	}
	g.Replay()
	if end := link.Ended(); end == nil || end.Cause != relay.GaveUp || end.Code != 1013 {
		t.Errorf("the session's end is %+v, want it given up", end)
	}
}

func TestOperationType(t *testing.T) {
	for _, tt := range []struct {
		name, document, operation string
		kind                      string // "" is unknown
	}{
		{"anonymous", "{ a }", "", "query"},
		{"query", "query { a }", "", "query"},
		{"named", "query Q { a }", "", "query"},
		{"mutation", "mutation { a }", "", "mutation"},
		{"subscription", "subscription S { a }", "", "subscription"},
		{"glued", "mutation{a}", "", "mutation"},
		{"fields with keywords' names", "query { mutation subscription { query } }", "", "query"},
		{"operation with a keyword's name", "mutation query { a }", "query", "mutation"},
		{"variables", "mutation M($a: [Int!] = [1, 2]) { a(x: $a) }", "", "mutation"},
		{"object as a default", "mutation M($a: T = {b: {c: 1}}) { a }", "", "mutation"},
		{"object as a default, anonymous", "mutation ($a: T = {b: {c: 1}}) { a }", "", "mutation"},
		{"directives", `subscription S @live(if: {a: "}"}) { a }`, "", "subscription"},
		{"directive, anonymous", `mutation @now { a }`, "", "mutation"},
		{"fragment behind", "query { ...F } fragment F on T { a }", "", "query"},
		{"fragment before", "fragment mutation on T { a } subscription { ...mutation }", "", "subscription"},
		{"two, one called", "query A { a } mutation B { b }", "B", "mutation"},
		{"two, the other called", "query A { a } mutation B { b }", "A", "query"},
		{"two, none called", "query A { a } mutation B { b }", "", ""},
		{"called what is not there", "query A { a }", "B", ""},
		{"two of one name", "query A { a } mutation A { b }", "A", ""},
		{"anonymous beside the called", "{ a } mutation B { b }", "B", "mutation"},
		{"two anonymous", "{ a } { b }", "", ""},
		{"comment", "# query {\nmutation { a } # }", "", "mutation"},
		{"comment ended by a return", "# query {\rmutation { a }", "", "mutation"},
		{"string", `query { a(x: "} mutation { b }") }`, "", "query"},
		{"escaped quote", `query { a(x: "\"} mutation { b }") }`, "", "query"},
		{"block string", `query { a(x: """ " } mutation { b } """) }`, "", "query"},
		{"escaped block string", `query { a(x: """ \""" } mutation { b } """) }`, "", "query"},
		{"commas and a byte order mark", "\ufeff,,mutation,M,{,a,}", "", "mutation"},
		{"empty", "", "", ""},
		{"only a fragment", "fragment F on T { a }", "", ""},
		{"unended", "mutation { a", "", "mutation"},
		{"unended string", `query { a(x: "`, "", "query"},
		{"nonsense", "}}}((", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind, ok := operationType(tt.document, tt.operation)
			if !ok {
				kind = ""
			}
			if kind != tt.kind {
				t.Errorf("got %q, want %q", kind, tt.kind)
			}
		})
	}
}

// FuzzOperationType looks for a document that is taken for something that
// may be repeated, but holds a mutation under the same conditions.
func FuzzOperationType(f *testing.F) {
	for _, seed := range []string{"{ a }", "query Q($a: T = {b: 1}) @d { a }", "mutation { a }", `query { a(x: """ \""" """) } # c`, "fragment F on T { a } subscription { ...F }", "query 0(}"} {
		f.Add(seed, "")
		f.Add(seed, "Q")
	}
	f.Fuzz(func(t *testing.T, document, name string) {
		kind, ok := operationType(document, name)
		switch kind {
		case "query", "mutation", "subscription":
		case "":
			if ok {
				t.Error("a type was found, and none is said")
			}
		default:
			t.Errorf("type %q", kind)
		}
		// A second operation makes what to run a matter of its name.
		if _, again := operationType(document+"\n{ a }", ""); ok && name == "" && again && closed(document) {
			t.Errorf("two operations, and one is found")
		}
	})
}

// closed reports whether a document ends outside all blocks, strings and
// comments, each closed by its own kind, so that something can follow.
func closed(document string) bool {
	var open []string
	s := documentScanner{rest: document}
	for token := s.next(); token != ""; token = s.next() {
		switch token {
		case "{", "(", "[":
			open = append(open, token)
		case "}", ")", "]":
			pair := map[string]string{"}": "{", ")": "(", "]": "["}
			if len(open) == 0 || open[len(open)-1] != pair[token] {
				return false
			}
			open = open[:len(open)-1]
		}
	}
	last := strings.TrimRight(document, " \t\r\n,")
	return len(open) == 0 && strings.HasSuffix(last, "}") && !strings.ContainsAny(document, "\"#")
}
