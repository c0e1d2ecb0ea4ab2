package proxy

import (
	"errors"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/relay"
)

// protocol is one that the session understands. It stands between the
// handlers and the upstream: it sees a client's message last, and an
// upstream's first. Inspection and lost are called as handlers are, one at a
// time; what it implements for the Link may be called meanwhile.
type protocol interface {
	relay.Replayer
	// fromClient says what becomes of a message on its way to an upstream.
	fromClient(m Message) Result
	// fromUpstream says what becomes of a message on its way to the client.
	fromUpstream(m Message) Result
	// lost is called when the upstream is lost and the client held.
	lost()
	// outlives reports whether a further upstream can be brought to where the
	// one before it was.
	outlives() bool
}

// outlives reports whether the session can go on when its upstream is lost.
func (s *Session) outlives() bool {
	return s.route.continuity != nil && (s.protocol == nil || s.protocol.outlives())
}

// newProtocol returns what the session understands, or nil.
func newProtocol(s *Session, query string) protocol {
	switch s.route.endpoint.Route.Protocol {
	case config.ProtocolGraphQL:
		if s.route.continuity != nil {
			return &graphQL{session: s}
		}
	case config.ProtocolPhoenix:
		return newChannels(s, query)
	case config.ProtocolRaw:
	}
	return nil
}

var errNotTold = errors.New("client does not take what was lost with its upstream")

// tell tells the client what was lost with its upstream. One that can't be
// told would wait for good, so it is closed and connects again.
func (s *Session) tell(messages [][]byte) {
	for _, m := range messages {
		if s.Push(Client, Text, m) == Full {
			s.end(End{Cause: relay.GaveUp, Err: errNotTold})
			return
		}
	}
}
