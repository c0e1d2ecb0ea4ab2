package room

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"go.uber.org/zap"
)

const (
	// historyLen is how many messages a member gets when it joins.
	historyLen = 50
	// maxBody bounds what one may say at once, in bytes.
	maxBody = 4 << 10
	// maxMessageID bounds a sender's name for a message.
	maxMessageID = 64
)

// channel is one socket's membership of one topic.
type channel struct {
	// static
	socket  *socket
	topic   string
	joinRef *string

	presence meta // guarded by the hub
}

// said is the payload of a push that says something.
type said struct {
	ID   string          `json:"id"`
	Body string          `json:"body"`
	To   json.RawMessage `json:"to"`
}

// refusal is an answer with a reason; its text goes to the client.
type refusal string

func (r refusal) Error() string { return string(r) }

// IsRefusal says whether an error may be told to the client.
func IsRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// Check says what is wrong with what somebody wants to say.
func (m Message) Check() error {
	switch {
	case strings.TrimSpace(m.Body) == "":
		return refusal("body is empty")
	case len(m.Body) > maxBody || !utf8.ValidString(m.Body):
		return refusal("body is too long")
	case len(m.ID) > maxMessageID:
		return refusal("id is too long")
	}
	return nil
}

// response is the payload of a phx_reply.
type response struct {
	Status   string `json:"status"`
	Response any    `json:"response"`
}

func reply(f Frame, err error, ok any) (Frame, error) {
	r := response{Status: "ok", Response: ok}
	if err != nil {
		r = response{Status: "error", Response: map[string]string{"reason": err.Error()}}
	} else if ok == nil {
		r.Response = struct{}{}
	}
	payload, err := json.Marshal(r)
	return Frame{JoinRef: f.JoinRef, Ref: f.Ref, Topic: f.Topic, Event: eventReply, Payload: payload}, err
}

// admits says whether a user may join a topic; nil is yes.
func (s *Server) admits(ctx context.Context, u User, topic string) error {
	if !strings.HasPrefix(topic, "room:") {
		return refusal("unmatched topic")
	}
	if topic == Lobby || topic == Private {
		return nil
	}
	member, err := s.store().Member(ctx, u.ID, topic)
	if err != nil {
		return s.hide(err, "look up a membership")
	}
	if !member {
		return refusal("unauthorized")
	}
	return nil
}

// afterJoin tells a new member who is there and what was said.
func (c *channel) afterJoin(ctx context.Context, present map[string]metas) error {
	if err := c.push("presence_state", present); err != nil {
		return err
	}
	var messages []Message
	var err error
	if c.topic == Private {
		messages, err = c.socket.server.store().LatestPrivate(ctx, c.socket.user.ID, historyLen)
	} else {
		messages, err = c.socket.server.store().Latest(ctx, c.topic, historyLen)
	}
	if err != nil {
		return err
	}
	if messages == nil {
		messages = []Message{}
	}
	return c.push("history", map[string]any{"messages": messages, "server": c.socket.server.name})
}

// push sends an event to this channel alone.
func (c *channel) push(event string, payload any) error {
	body, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	return c.socket.send(Frame{JoinRef: c.joinRef, Topic: c.topic, Event: event, Payload: body})
}

// handle answers one push of the client. What it says is acknowledged only
// once it is kept.
func (c *channel) handle(ctx context.Context, f Frame) (any, error) {
	switch {
	case f.Event == "new_msg" && c.topic != Private:
	case f.Event == "send_msg" && c.topic == Private:
	default:
		return nil, refusal("unknown event")
	}
	if f.Binary != nil {
		return nil, refusal("want a payload in JSON")
	}
	var what said
	if err := json.Unmarshal(f.Payload, &what); err != nil {
		return nil, refusal(`want {"body": "…"}`)
	}
	m := Message{ID: what.ID, Topic: c.topic, From: c.socket.user.ID, Name: c.socket.user.Name, Body: what.Body}
	if err := m.Check(); err != nil {
		return nil, err
	}
	if c.topic == Private {
		to, err := userID(what.To)
		if err != nil {
			return nil, err
		}
		m.To = to
	}
	kept, err := c.socket.server.Say(ctx, m)
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": kept.ID, "seq": kept.Seq, "at": kept.At, "topic": kept.Topic}, nil
}

// userID reads the id of a user, which JavaScript may hold as a number.
func userID(raw json.RawMessage) (string, error) {
	var text string
	var number json.Number
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return text, nil
	}
	if json.Unmarshal(raw, &number) == nil && number != "" {
		return number.String(), nil
	}
	return "", refusal("to is not a user")
}

// Say keeps a message and tells those who may hear it; what was kept before
// is not told again, since everybody has it or will find it in the history.
// A message with To is private: its topic is found by the two users.
func (s *Server) Say(ctx context.Context, m Message) (Message, error) {
	s.start()
	if m.ID == "" {
		m.ID = rand.Text() // nobody can repeat it, then
	}
	if m.To != "" {
		topic, err := s.store().Direct(ctx, m.From, m.To)
		if errors.Is(err, ErrNoUser) {
			return Message{}, refusal(ErrNoUser.Error())
		}
		if err != nil {
			return Message{}, s.hide(err, "find the room of two")
		}
		m.Topic = topic
	}
	kept, fresh, err := s.store().Save(ctx, m)
	if errors.Is(err, ErrConflict) {
		return Message{}, refusal(ErrConflict.Error())
	}
	if err != nil {
		return Message{}, s.hide(err, "keep a message")
	}
	if !fresh {
		return kept, nil
	}
	s.hub.broadcast(kept.Topic, "new_msg", kept, nil)
	if kept.To != "" {
		s.hub.broadcast(Private, "receive_msg", kept, func(c *channel) bool {
			id := c.socket.user.ID
			return id == kept.From || id == kept.To
		})
	}
	return kept, nil
}

// hide logs an error that is no business of the client.
func (s *Server) hide(err error, what string) error {
	if !errors.Is(err, context.Canceled) {
		s.log().Error(what, zap.Error(err))
	}
	return refusal("internal error")
}
