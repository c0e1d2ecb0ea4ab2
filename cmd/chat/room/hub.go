package room

import (
	"encoding/json"
	"sync"
	"time"
)

// maxChannels bounds the channels of all sockets together.
const maxChannels = 100_000

// hub knows which channels are joined to which topics, and who is present.
type hub struct {
	mu      sync.Mutex
	refs    uint64
	joined  int
	topics  map[string]map[*channel]struct{}
	sockets map[*socket]struct{}
}

func newHub() *hub {
	return &hub{topics: make(map[string]map[*channel]struct{}), sockets: make(map[*socket]struct{})}
}

// meta is one presence of a user, one for each of their channels.
type meta struct {
	Ref      string `json:"phx_ref"`
	Name     string `json:"name"`
	OnlineAt string `json:"online_at"`
}

// metas are a user's presences in a topic, as Phoenix.Presence groups them.
type metas struct {
	Metas []meta `json:"metas"`
}

// diff is a change of who is present.
type diff struct {
	Joins  map[string]metas `json:"joins"`
	Leaves map[string]metas `json:"leaves"`
}

// enter makes c hear its topic and tells all in it, c too; present is who is
// there now. It returns false where the hub is full.
func (h *hub) enter(c *channel) (present map[string]metas, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.joined >= maxChannels {
		return nil, false
	}
	h.joined++
	h.refs++
	c.presence = meta{Ref: phxRef(h.refs), Name: c.socket.user.Name, OnlineAt: time.Now().UTC().Format(time.RFC3339)}
	members := h.topics[c.topic]
	if members == nil {
		members = make(map[*channel]struct{})
		h.topics[c.topic] = members
	}
	members[c] = struct{}{}
	present = make(map[string]metas)
	for m := range members {
		id := m.socket.user.ID
		present[id] = metas{append(present[id].Metas, m.presence)}
	}
	h.tell(c.topic, "presence_diff", diff{Joins: c.present(), Leaves: map[string]metas{}}, func(m *channel) bool { return m != c })
	return present, true
}

// exit makes c hear nothing more, and tells those who still do.
func (h *hub) exit(c *channel) {
	h.mu.Lock()
	defer h.mu.Unlock()
	members := h.topics[c.topic]
	if _, ok := members[c]; !ok {
		return
	}
	h.joined--
	delete(members, c)
	if len(members) == 0 {
		delete(h.topics, c.topic)
		return
	}
	h.tell(c.topic, "presence_diff", diff{Joins: map[string]metas{}, Leaves: c.present()}, nil)
}

func (c *channel) present() map[string]metas {
	return map[string]metas{c.socket.user.ID: {[]meta{c.presence}}}
}

// broadcast sends an event to the channels of a topic that are wanted; nil
// is all.
func (h *hub) broadcast(topic, event string, payload any, wanted func(*channel) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell(topic, event, payload, wanted)
}

// tell is broadcast; the caller holds mu. It never waits: who takes nothing
// is put out, see socket.offer.
func (h *hub) tell(topic, event string, payload any, wanted func(*channel) bool) {
	body, err := json.Marshal(payload)
	if err != nil {
		return // what is told are our own types, which can be marshalled
	}
	// A broadcast has no join_ref, so that one encoding fits all.
	data, err := Frame{Topic: topic, Event: event, Payload: body}.Encode()
	if err != nil {
		return
	}
	for c := range h.topics[topic] {
		if wanted == nil || wanted(c) {
			c.socket.offer(data)
		}
	}
}

// connect makes s one that disconnect can find.
func (h *hub) connect(s *socket, limit int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sockets) >= limit {
		return false
	}
	h.sockets[s] = struct{}{}
	return true
}

func (h *hub) disconnect(s *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, s)
}

// matching returns the sockets of users that are wanted.
func (h *hub) matching(wanted func(User) bool) []*socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []*socket
	for s := range h.sockets {
		if wanted(s.user) {
			found = append(found, s)
		}
	}
	return found
}
