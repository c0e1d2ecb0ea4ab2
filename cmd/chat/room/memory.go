package room

import (
	"context"
	"strings"
	"sync"
	"time"
)

// maxRemembered bounds what a Memory keeps; the oldest is forgotten.
const maxRemembered = 1000

// Memory is a Store that forgets with the process. Its zero value is empty.
// Whoever has connected may write to anybody, and nobody joins the room of
// two others.
type Memory struct {
	mu       sync.Mutex
	seq      int64
	messages []Message
}

// directPrefix begins the rooms of two; names in them are separated by "+".
const directPrefix = "room:direct:"

// Member implements Store.
func (*Memory) Member(_ context.Context, user, topic string) (bool, error) {
	names, ok := strings.CutPrefix(topic, directPrefix)
	a, b, _ := strings.Cut(names, "+")
	return ok && (user == a || user == b), nil
}

// Direct implements Store.
func (*Memory) Direct(_ context.Context, a, b string) (string, error) {
	if b == "" || b == a || strings.Contains(b, "+") {
		return "", ErrNoUser
	}
	return directPrefix + min(a, b) + "+" + max(a, b), nil
}

// Save implements Store.
func (m *Memory) Save(_ context.Context, msg Message) (Message, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, old := range m.messages {
		if old.From == msg.From && old.ID == msg.ID {
			if old.Topic != msg.Topic || old.Body != msg.Body {
				return Message{}, false, ErrConflict
			}
			return old, false, nil
		}
	}
	m.seq++
	msg.Seq, msg.At = m.seq, time.Now().UTC()
	if len(m.messages) >= maxRemembered {
		m.messages = append(m.messages[:0], m.messages[1:]...)
	}
	m.messages = append(m.messages, msg)
	return msg, true, nil
}

// Latest implements Store.
func (m *Memory) Latest(_ context.Context, topic string, limit int) ([]Message, error) {
	return m.last(limit, func(msg Message) bool { return msg.Topic == topic }), nil
}

// LatestPrivate implements Store.
func (m *Memory) LatestPrivate(_ context.Context, user string, limit int) ([]Message, error) {
	return m.last(limit, func(msg Message) bool {
		return msg.To != "" && (msg.From == user || msg.To == user)
	}), nil
}

func (m *Memory) last(limit int, wanted func(Message) bool) []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Message
	for _, msg := range m.messages {
		if wanted(msg) {
			found = append(found, msg)
		}
	}
	return found[max(0, len(found)-limit):]
}
