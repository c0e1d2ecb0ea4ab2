package proxy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/stentproxy/stent/proxy/relay"
)

// graphQL follows one connection of the graphql-transport-ws protocol
// (github.com/enisdenjo/graphql-ws, PROTOCOL.md), so that a new upstream can
// be brought to where the lost one was: it gets the client's
// connection_init, its acknowledgement is swallowed, and then the active
// operations under their own ids. A mutation may have taken effect already,
// so it is answered with an error instead of being sent again.
type graphQL struct {
	session *Session

	mu        sync.Mutex
	init      []byte // connection_init, as an upstream has taken it
	acked     bool   // the client has its acknowledgement
	greeting  bool   // a further upstream's acknowledgement is awaited
	active    map[string]operation
	asked     uint64 // operations so far
	remembers int    // bytes of their messages
	needs     int    // bytes of what can't be left out
	beyond    bool   // that was too much: nothing more is remembered
	// pending has the ids of subscribe messages on their way to an upstream.
	// Its answer may be here before it is known that the upstream has taken
	// them all: true is for those that have ended so.
	pending map[string]bool
}

// operation is a subscribe message without an end yet.
type operation struct {
	message    []byte
	repeatable bool
	number     uint64 // in the order of the client
}

const (
	// maxOperations bounds the messages that are remembered of one session,
	// in bytes. What is beyond it is not sent again but answered with an
	// error.
	maxOperations = 1 << 20
	// maxNeeds bounds connection_init and the ids of operations, in bytes. A
	// session beyond it ends with its upstream.
	maxNeeds = 256 << 10
	// idSize is what an id takes beside its own bytes.
	idSize = 100
)

// graphQLMessage is what all messages of the protocol have.
type graphQLMessage struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
}

// HandedOver implements relay.Replayer.
func (g *graphQL) HandedOver(t Type, data []byte) {
	var m graphQLMessage
	if t != Text || json.Unmarshal(data, &m) != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch m.Type {
	case "connection_init":
		if g.init == nil && g.need(len(data)) {
			g.init = bytes.Clone(data)
		}
	case "subscribe":
		g.subscribed(&m, data)
	case "complete":
		g.ended(m.ID)
	}
}

// subscribed remembers an operation; g.mu is held.
func (g *graphQL) subscribed(m *graphQLMessage, data []byte) {
	early, pending := g.pending[m.ID]
	if pending {
		delete(g.pending, m.ID)
		g.needs -= idSize + len(m.ID)
	}
	if early {
		return
	}
	g.ended(m.ID) // an id that is used twice is the upstream's to refuse
	if !g.need(idSize + len(m.ID)) {
		return
	}
	g.asked++
	op := operation{number: g.asked}
	if g.remembers+len(data) <= maxOperations && repeatable(m.Payload) {
		op.repeatable = true
		op.message = bytes.Clone(data)
		g.remembers += len(data)
	}
	if g.active == nil {
		g.active = make(map[string]operation)
	}
	g.active[m.ID] = op
}

// need reports whether there is room for what can't be left out, of so many
// bytes. Once there is none the session can't be brought to another upstream
// any more; g.mu is held.
func (g *graphQL) need(n int) bool {
	g.beyond = g.beyond || g.needs+n > maxNeeds
	if g.beyond {
		return false
	}
	g.needs += n
	return true
}

// ended forgets an operation; g.mu is held.
func (g *graphQL) ended(id string) {
	op, ok := g.active[id]
	if !ok {
		return
	}
	g.remembers -= len(op.message)
	g.needs -= idSize + len(id)
	delete(g.active, id)
}

// fromClient looks at a message on its way to an upstream.
func (g *graphQL) fromClient(message Message) Result {
	var m graphQLMessage
	if message.Type != Text || json.Unmarshal(message.Data, &m) != nil || m.Type != "subscribe" {
		return OK()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, again := g.pending[m.ID]; !again && !g.need(idSize+len(m.ID)) {
		return OK()
	}
	if g.pending == nil {
		g.pending = make(map[string]bool)
	}
	g.pending[m.ID] = false
	return OK()
}

// lost implements protocol: what is lost is known when the next upstream is
// there.
func (g *graphQL) lost() {}

// subprotocolGraphQL is what the protocol is called in a handshake.
const subprotocolGraphQL = "graphql-transport-ws"

// outlives implements protocol. Others begin in the same way, above all the
// older one that is called graphql-ws, but name their operations by messages
// that mean nothing here: those would be lost without a word.
func (g *graphQL) outlives() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.beyond && g.session.Subprotocol() == subprotocolGraphQL
}

// fromUpstream swallows an acknowledgement that the client has had, and
// notes which operations end.
func (g *graphQL) fromUpstream(message Message) Result {
	var m graphQLMessage
	if message.Type != Text || json.Unmarshal(message.Data, &m) != nil {
		return OK()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch m.Type {
	case "connection_ack":
		again := g.greeting && g.acked
		g.greeting, g.acked = false, true
		if again {
			return Drop()
		}
	case "error", "complete":
		if _, active := g.active[m.ID]; active {
			g.ended(m.ID)
		} else if _, pending := g.pending[m.ID]; pending {
			g.pending[m.ID] = true
		}
	}
	return OK()
}

// Greet implements relay.Replayer.
func (g *graphQL) Greet() []relay.Recorded {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.init == nil {
		return nil
	}
	g.greeting = true
	return []relay.Recorded{{Type: Text, Data: g.init}}
}

// Ready implements relay.Replayer.
func (g *graphQL) Ready() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.greeting
}

// Replay implements relay.Replayer.
func (g *graphQL) Replay() []relay.Recorded {
	again, lost := g.repeat()
	g.session.tell(lost)
	return again
}

// repeat returns what is sent again, and what the client is told of the rest.
func (g *graphQL) repeat() (again []relay.Recorded, lost [][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	byNumber := func(a, b string) int { return cmp.Compare(g.active[a].number, g.active[b].number) }
	for _, id := range slices.SortedFunc(maps.Keys(g.active), byNumber) {
		if op := g.active[id]; op.repeatable {
			again = append(again, relay.Recorded{Type: Text, Data: op.message})
		} else {
			lost = append(lost, operationLost(id))
			g.ended(id)
		}
	}
	return again, lost
}

// operationLost is the error message for an operation that was lost with
// its upstream.
func operationLost(id string) []byte {
	type graphQLError struct {
		Message string `json:"message"`
	}
	// Strings alone: encoding can't fail.
	data, _ := json.Marshal(struct {
		ID      string         `json:"id"`
		Type    string         `json:"type"`
		Payload []graphQLError `json:"payload"`
	}{id, "error", []graphQLError{{"the upstream was lost and this operation can't be repeated"}}})
	return data
}

// repeatable reports whether a subscribe message's operation may be sent
// twice: a subscription or a query. Where that can't be told, as for a
// persisted document, it may not.
func repeatable(payload json.RawMessage) bool {
	var p struct {
		Query         string `json:"query"`
		OperationName string `json:"operationName"`
	}
	if json.Unmarshal(payload, &p) != nil || p.Query == "" {
		return false
	}
	kind, ok := operationType(p.Query, p.OperationName)
	return ok && kind != "mutation"
}

// operationType finds the type of the operation that a document runs: the
// one called name, or its only one (GraphQL, October 2021, sections 2.3 and
// 6.1).
func operationType(document, name string) (kind string, ok bool) {
	found := 0
	for s := (documentScanner{rest: document}); ; {
		token := s.next()
		switch token {
		case "":
			return kind, found == 1
		case "{":
			s.skipBlock()
			if name == "" {
				kind = "query"
				found++
			}
		case "query", "mutation", "subscription":
			called := s.next()
			if name == "" || called == name {
				kind = token
				found++
			}
			if called != "{" {
				s.toBlock()
			}
			s.skipBlock()
		default: // a fragment, or its name and condition
			s.toBlock()
			s.skipBlock()
		}
	}
}

// documentScanner reads a GraphQL document's tokens as far as finding
// its operations needs.
type documentScanner struct{ rest string }

// next returns the next name or punctuator; strings and comments are
// skipped. It is empty at the end.
func (s *documentScanner) next() string {
	for s.rest != "" {
		switch c := s.rest[0]; {
		case c == '#':
			n := strings.IndexAny(s.rest, "\r\n")
			if n < 0 {
				n = len(s.rest)
			}
			s.rest = s.rest[n:]
		case strings.HasPrefix(s.rest, `"""`):
			s.skipString(`"""`)
		case c == '"':
			s.skipString(`"`)
		case isName(c):
			n := 1
			for n < len(s.rest) && isName(s.rest[n]) {
				n++
			}
			token := s.rest[:n]
			s.rest = s.rest[n:]
			return token
		case strings.IndexByte(" \t\r\n,", c) >= 0 || c >= 0x80:
			s.rest = s.rest[1:]
		default:
			s.rest = s.rest[1:]
			return string(c)
		}
	}
	return ""
}

func (s *documentScanner) skipString(quote string) {
	s.rest = s.rest[len(quote):]
	for s.rest != "" && !strings.HasPrefix(s.rest, quote) {
		n := 1
		if s.rest[0] == '\\' {
			n = min(2, len(s.rest))
		}
		s.rest = s.rest[n:]
	}
	s.rest = strings.TrimPrefix(s.rest, quote)
}

// toBlock skips to the selection set, past variables and their defaults.
func (s *documentScanner) toBlock() {
	for depth := 0; ; {
		switch s.next() {
		case "":
			return
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		case "{":
			if depth <= 0 {
				return
			}
			s.skipBlock()
		}
	}
}

// skipBlock skips to the end of a block whose opening brace is read.
func (s *documentScanner) skipBlock() {
	for depth := 1; depth > 0; {
		switch s.next() {
		case "":
			return
		case "{":
			depth++
		case "}":
			depth--
		}
	}
}

func isName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
