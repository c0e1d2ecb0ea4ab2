package proxy

import (
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/phoenix"
	"github.com/stentproxy/stent/proxy/relay"
)

// channels is Phoenix's Channels as a session's protocol.
type channels struct {
	session *Session
	socket  *phoenix.Socket
}

func newChannels(s *Session, query string) *channels {
	options := phoenix.Options{
		Version: phoenix.VersionOf(query),
		Rules:   s.route.endpoint.Route.Topics,
		Claims:  s.Claims,
		Count:   s.route.channels,
	}
	if c := s.route.continuity; c != nil {
		options.Rejoin = c.Replay.Joins
		options.Keep = int(c.Replay.Bytes)
		options.Held = c.AcceptEarly
	}
	return &channels{session: s, socket: phoenix.NewSocket(options)}
}

// codeNoMessage closes a client whose messages can't be asked about.
const codeNoMessage = 1008

func (c *channels) fromClient(m Message) Result {
	action, err := c.socket.FromClient(m.Type == Binary, m.Data, time.Now())
	if err != nil {
		c.session.Log().Info("client's message refused", zap.Error(err))
		return Stop(codeNoMessage, err.Error())
	}
	return c.result(action)
}

func (c *channels) fromUpstream(m Message) Result {
	return c.result(c.socket.FromServer(m.Data))
}

// result carries an action out.
func (c *channels) result(a phoenix.Action) Result {
	switch {
	case a.Answer != nil:
		return Result{Verdict: relay.Reply, Type: Text, Data: a.Answer}
	case a.Instead != nil:
		return Forward(Text, a.Instead)
	case a.Drop:
		return Drop()
	}
	return OK()
}

func (c *channels) lost() { c.session.tell(c.socket.Lost()) }

// outlives implements protocol: what can't be repeated is told.
func (c *channels) outlives() bool { return true }

// HandedOver implements relay.Replayer.
func (c *channels) HandedOver(_ Type, data []byte) { c.socket.HandedOver(data) }

// Greet implements relay.Replayer: a server waits for nothing.
func (c *channels) Greet() []relay.Recorded { return nil }

// Ready implements relay.Replayer.
func (c *channels) Ready() bool { return true }

// Replay implements relay.Replayer.
func (c *channels) Replay() []relay.Recorded {
	again, tell := c.socket.Replay()
	c.session.tell(tell)
	var messages []relay.Recorded
	for _, r := range again {
		t := Text
		if r.Binary {
			t = Binary
		}
		messages = append(messages, relay.Recorded{Type: t, Data: r.Data})
	}
	return messages
}

// Topics lists the Phoenix topics that the client has joined.
func (s *Session) Topics() []string {
	if c, ok := s.protocol.(*channels); ok {
		return c.socket.Topics()
	}
	return nil
}
