package phoenix

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/stentproxy/stent/config"
)

// Options say how a Socket follows its client.
type Options struct {
	Version Version
	// Rules say who may join what; none lets everybody join anything.
	Rules []config.Topic
	// Claims returns what is known of the client.
	Claims func() map[string]any
	// Rejoin has joined channels joined again at a further server, in the
	// client's stead. Otherwise it is told that they are lost.
	Rejoin bool
	// Keep bounds the joins that are remembered to be sent again, in bytes.
	// What is beyond it is not. Where it is 0, HandedOver need not be called.
	Keep int
	// Held says that there is no server at first.
	Held bool
	// Count counts; nil does not.
	Count Counter
}

// Counter counts what happens to channels.
type Counter interface {
	// Join counts a join by its result.
	Join(topic, result string)
	// Error counts a phx_error that the client gets, by who sent it.
	Error(topic, from string)
	// Event counts a message of the application on a joined channel.
	Event(from string, event []byte)
}

// The results of a join.
const (
	JoinOK       = "ok"
	JoinRefused  = "refused"  // by the server
	JoinDenied   = "denied"   // by a rule
	JoinLimited  = "limited"  // by a rule's rate
	JoinRepeated = "repeated" // at a further server, in the client's stead
)

// Who sends messages, in the metrics.
const (
	fromClient   = "client"
	fromUpstream = "upstream"
	fromStent    = "stent"
)

// The reasons that a client reads.
const (
	reasonUnauthorized = "unauthorized"             // as applications say it
	reasonTooMany      = "too many channels joined" // as Phoenix says it
	reasonLimited      = "rate limited"
	reasonLost         = "upstream lost"
)

// maxChannels bounds the channels of one client; Phoenix has it at 100.
const maxChannels = 1000

// maxBeats bounds the heartbeats that are known to be unanswered.
const maxBeats = 8

// Action is what becomes of a message. The zero value lets it pass.
type Action struct {
	// Drop keeps the message from going further.
	Drop bool
	// Answer is text for the client; nil is none.
	Answer []byte
	// Instead is text that takes the message's place; nil is none.
	Instead []byte
}

// Repeat is a message for a further server.
type Repeat struct {
	Binary bool
	Data   []byte
}

// Socket follows the channels of one client while its servers come and go.
// Its methods may be called from several goroutines.
type Socket struct {
	Options

	mu sync.Mutex
	// guarded by mu
	held     bool       // there is no server that is up to date
	channels []*channel // in the order of their joins
	byTopic  map[string]*channel
	kept     int // bytes of joins
	ahead    ahead
	beats    [][]byte // refs of heartbeats that are not answered
	answered [][]byte // refs of those that we have answered instead
	limits   map[int]*rate.Limiter
}

// state is where a channel stands.
type state uint8

const (
	asked    state = iota // the client's join is on its way to a server, or held
	waiting               // it is remembered, for there is no server
	sent                  // a server has it, and has not answered
	joined                // it is answered
	repeated              // it was, and another server has it again
)

// channel is a topic that the client has joined or is about to.
type channel struct {
	topic        string
	class        string
	joinRef, ref []byte
	state        state
	join         []byte // the message, where it is kept
	binary       bool
	leaving      bool   // the client has asked to leave
	leaveRef     []byte // by this message,
	left         bool   // which a server has
}

// NewSocket returns a Socket without channels.
func NewSocket(o Options) *Socket { return &Socket{Options: o, held: o.Held} }

// Topics lists what the client has joined.
func (s *Socket) Topics() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var topics []string
	for _, ch := range s.channels {
		if ch.state == joined || ch.state == repeated {
			topics = append(topics, ch.topic)
		}
	}
	return topics
}

// FromClient says what becomes of a client's message. It returns
// ErrMalformed where there are rules and a message that they can't be asked
// about.
func (s *Socket) FromClient(binary bool, data []byte, now time.Time) (Action, error) {
	m, err := FromClient(data)
	if err != nil {
		if len(s.Rules) > 0 {
			return Action{}, err
		}
		return Action{}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.IsHeartbeat():
		return s.heartbeat(&m), nil
	case m.Is(EventJoin):
		return s.join(&m, binary, data, now), nil
	case m.Is(EventLeave):
		return s.leave(&m), nil
	}
	if ch := s.byTopic[string(m.Topic)]; ch != nil && s.Count != nil {
		s.Count.Event(fromClient, m.Event)
	}
	return Action{}, nil
}

// heartbeat is answered here while there is no server to do it.
func (s *Socket) heartbeat(m *Message) Action {
	if s.held {
		return Action{Drop: true, Answer: s.reply(m, StatusOK, "")}
	}
	if len(s.beats) == maxBeats {
		s.beats = slices.Delete(s.beats, 0, 1)
	}
	s.beats = append(s.beats, bytes.Clone(m.Ref))
	return Action{}
}

func (s *Socket) join(m *Message, binary bool, data []byte, now time.Time) Action {
	topic := string(m.Topic)
	named := class(topic)
	if len(s.Rules) > 0 {
		i, result := s.allowed(topic, now)
		if i >= 0 {
			named = s.Rules[i].Match
		}
		if result != JoinOK {
			s.countJoin(named, result)
			reason := reasonUnauthorized
			if result == JoinLimited {
				reason = reasonLimited
			}
			return Action{Drop: true, Answer: s.reply(m, StatusError, reason)}
		}
	}
	old := s.byTopic[topic]
	if old == nil && len(s.channels) >= maxChannels {
		s.countJoin(named, JoinDenied)
		return Action{Drop: true, Answer: s.reply(m, StatusError, reasonTooMany)}
	}
	if old != nil { // a server closes it, too, before it looks at the new join
		s.forget(old)
	}
	ch := &channel{topic: topic, class: named, joinRef: bytes.Clone(m.JoinRef), ref: bytes.Clone(m.Ref), binary: binary}
	if s.kept+len(data) <= s.Keep {
		ch.join = bytes.Clone(data)
		s.kept += len(data)
	}
	if s.byTopic == nil {
		s.byTopic = make(map[string]*channel)
	}
	s.byTopic[topic] = ch
	s.channels = append(s.channels, ch)
	if s.held && ch.join != nil && !s.ahead.of(topic) {
		// Kept out of what is held: when the client's patience with it ends it
		// joins anew, and only its last join is for a server. It gets there
		// before what is held, so that nothing of the topic may be in there: a
		// join would close this one, and a leave without join_ref leave it.
		ch.state = waiting
		return Action{Drop: true}
	}
	s.passes(topic)
	return Action{}
}

// passes notes a join or leave that goes on to a server.
func (s *Socket) passes(topic string) {
	if s.Keep > 0 {
		s.ahead.add(topic)
	}
}

// allowed asks the rules. It returns the rule that decides, or -1.
func (s *Socket) allowed(topic string, now time.Time) (rule int, result string) {
	i, rest := findRule(s.Rules, topic)
	if i < 0 {
		return i, JoinDenied
	}
	r := &s.Rules[i]
	if !r.Allow {
		return i, JoinDenied
	}
	if r.Claim != "" && (s.Claims == nil || !claimHolds(r.Claim, s.Claims(), rest)) {
		return i, JoinDenied
	}
	if r.JoinsPerSecond > 0 {
		limit := s.limits[i]
		if limit == nil {
			limit = rate.NewLimiter(rate.Limit(r.JoinsPerSecond), int(math.Ceil(r.JoinsPerSecond)))
			if s.limits == nil {
				s.limits = make(map[int]*rate.Limiter)
			}
			s.limits[i] = limit
		}
		if !limit.AllowN(now, 1) {
			return i, JoinLimited
		}
	}
	return i, JoinOK
}

func (s *Socket) leave(m *Message) Action {
	topic := string(m.Topic)
	ch := s.byTopic[topic]
	if ch != nil && m.JoinRef != nil && !sameRef(m.JoinRef, ch.joinRef) {
		ch = nil // of a join before
	}
	switch {
	case s.held && (ch == nil || ch.state == waiting) && !s.ahead.of(topic):
		// No server has heard of it, or will.
		if ch != nil {
			s.forget(ch)
		}
		return Action{Drop: true, Answer: s.reply(m, StatusOK, "")}
	case ch != nil:
		ch.leaving, ch.left, ch.leaveRef = true, false, bytes.Clone(m.Ref)
	}
	s.passes(topic) // the server's to answer, or to ignore
	return Action{}
}

// HandedOver is told of a client's message that a server's socket has taken.
func (s *Socket) HandedOver(data []byte) {
	m, err := FromClient(data)
	if err != nil || !m.Is(EventJoin) && !m.Is(EventLeave) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	topic := string(m.Topic)
	s.ahead.done(topic)
	ch := s.byTopic[topic]
	switch {
	case ch == nil:
	case m.Is(EventJoin):
		if ch.state == asked && sameRef(m.Ref, ch.ref) {
			ch.state = sent // unless its answer is here already
		}
	case ch.leaving && sameRef(m.Ref, ch.leaveRef):
		ch.left = true
	}
}

// FromServer says what becomes of a server's message.
func (s *Socket) FromServer(data []byte) Action {
	m, err := FromServer(data)
	if err != nil {
		return Action{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(m.Topic) == TopicPhoenix {
		return s.beat(&m)
	}
	ch := s.byTopic[string(m.Topic)]
	if ch == nil {
		return Action{}
	}
	switch {
	case m.Is(EventReply):
		return s.replied(ch, &m)
	case m.Is(EventError):
		if ch.current(&m) {
			s.countError(ch, fromUpstream)
			s.forget(ch)
		}
	case m.Is(EventClose):
		if ch.current(&m) {
			s.forget(ch)
		}
	case s.Count != nil:
		s.Count.Event(fromUpstream, m.Event)
	}
	return Action{}
}

// beat swallows the answer to a heartbeat that we have answered.
func (s *Socket) beat(m *Message) Action {
	if !m.Is(EventReply) {
		return Action{}
	}
	same := func(ref []byte) bool { return sameRef(ref, m.Ref) }
	if i := slices.IndexFunc(s.beats, same); i >= 0 {
		s.beats = slices.Delete(s.beats, i, i+1)
		return Action{}
	}
	if i := slices.IndexFunc(s.answered, same); i >= 0 {
		s.answered = slices.Delete(s.answered, i, i+1)
		return Action{Drop: true}
	}
	return Action{}
}

// replied handles a reply on a channel's topic.
func (s *Socket) replied(ch *channel, m *Message) Action {
	switch {
	case ch.state != joined && sameRef(m.Ref, ch.ref):
		return s.joinReplied(ch, m)
	case ch.leaving && sameRef(m.Ref, ch.leaveRef):
		s.forget(ch)
	}
	return Action{}
}

// joinReplied handles the answer to a join. The client has had one where it
// was repeated.
func (s *Socket) joinReplied(ch *channel, m *Message) Action {
	again := ch.state == repeated
	if m.ReplyStatus() == StatusOK {
		ch.state = joined
		if !s.Rejoin {
			s.drop(ch)
		}
		if again {
			s.countJoin(ch.class, JoinRepeated)
			return Action{Drop: true}
		}
		s.countJoin(ch.class, JoinOK)
		return Action{}
	}
	s.countJoin(ch.class, JoinRefused)
	s.forget(ch)
	if !again {
		return Action{}
	}
	// It joins by itself then, and hears why it can't.
	s.countError(ch, fromStent)
	return Action{Instead: s.lost(ch)}
}

// current reports whether a phx_error or phx_close is about this join of the
// topic, and not about one before it.
func (ch *channel) current(m *Message) bool {
	if m.JoinRef != nil {
		return sameRef(m.JoinRef, ch.joinRef)
	}
	return m.Ref == nil || sameRef(m.Ref, ch.joinRef) || sameRef(m.Ref, ch.ref)
}

// Lost is told that there is no server any more. It returns what the client
// is to be told.
func (s *Socket) Lost() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	var tell [][]byte
	for _, ref := range s.beats {
		tell = append(tell, s.reply(&Message{Ref: ref, Topic: []byte(TopicPhoenix)}, StatusOK, ""))
	}
	s.answered = append(s.answered, s.beats...)
	s.beats = nil
	if n := len(s.answered) - maxBeats; n > 0 {
		s.answered = slices.Delete(s.answered, 0, n)
	}
	return append(tell, s.settle()...)
}

// settle ends the channels that were lost with their server and can't be
// brought to another. It returns what the client is to be told.
func (s *Socket) settle() (tell [][]byte) {
	for _, ch := range slices.Clone(s.channels) {
		switch {
		case ch.leaving && ch.left:
			// Nobody is left to say so.
			leave := &Message{JoinRef: ch.joinRef, Ref: ch.leaveRef, Topic: []byte(ch.topic)}
			tell = append(tell, s.reply(leave, StatusOK, ""), s.note(ch, EventClose, `{}`))
			s.forget(ch)
		case ch.state == asked, ch.state == waiting:
		case ch.state == sent && ch.join != nil && !s.ahead.of(ch.topic):
			ch.state = waiting // as if it were made now
		case ch.join != nil && (s.Rejoin || ch.state == sent):
		case ch.leaving:
			s.forget(ch) // what is held says so to the next server
		default:
			tell = append(tell, s.lost(ch))
			s.countError(ch, fromStent)
			s.forget(ch)
		}
	}
	return tell
}

// Replay is told that there is a server that is up to date once it has got
// what Replay returns. The client is to be told the rest.
func (s *Socket) Replay() (again []Repeat, tell [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tell = s.settle()
	s.held = false
	for _, ch := range s.channels {
		switch ch.state {
		case asked: // it comes by itself
			continue
		case waiting:
			ch.state = sent
		case joined:
			ch.state = repeated
		case sent, repeated:
		}
		again = append(again, Repeat{ch.binary, ch.join})
	}
	return again, tell
}

// forget no longer follows a channel.
func (s *Socket) forget(ch *channel) {
	s.drop(ch)
	delete(s.byTopic, ch.topic)
	s.channels = slices.DeleteFunc(s.channels, func(other *channel) bool { return other == ch })
}

// drop no longer keeps a channel's join.
func (s *Socket) drop(ch *channel) {
	s.kept -= len(ch.join)
	ch.join = nil
}

// reply is one to a client's message.
func (s *Socket) reply(to *Message, status, reason string) []byte {
	response := `{}`
	if reason != "" {
		response = `{"reason":"` + reason + `"}`
	}
	return AppendText(nil, s.Version, &Message{
		JoinRef: to.JoinRef, Ref: to.Ref, Topic: to.Topic, Event: []byte(EventReply),
		Payload: []byte(`{"status":"` + status + `","response":` + response + `}`),
	})
}

// lost is the phx_error that has a client join a channel again.
func (s *Socket) lost(ch *channel) []byte {
	return s.note(ch, EventError, `{"reason":"`+reasonLost+`"}`)
}

// note is a message about a channel, as a server sends it.
func (s *Socket) note(ch *channel, event, payload string) []byte {
	return AppendText(nil, s.Version, &Message{
		JoinRef: ch.joinRef, Ref: ch.joinRef, Topic: []byte(ch.topic), Event: []byte(event), Payload: []byte(payload),
	})
}

func (s *Socket) countJoin(topic, result string) {
	if s.Count != nil {
		s.Count.Join(topic, result)
	}
}

func (s *Socket) countError(ch *channel, from string) {
	if s.Count != nil {
		s.Count.Error(ch.class, from)
	}
}
