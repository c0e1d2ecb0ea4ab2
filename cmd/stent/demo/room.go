package demo

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	// outboxLen bounds what waits for one member; who takes nothing for that
	// long is put out of the room.
	outboxLen = 64
	// writeTimeout bounds the writing of one message.
	writeTimeout = 10 * time.Second
	// maxSaid bounds a message in the room, in bytes.
	maxSaid = 8 << 10
	// maxMembers bounds the room.
	maxMembers = 1000
)

// said is a message of the room, in both directions.
type said struct {
	// Op is "say" from a member and "ping" where no rule of the proxy has
	// answered it; to a member it is "welcome", "said", "people" or "pong".
	Op   string `json:"op"`
	Name string `json:"name,omitempty"`
	Text string `json:"text,omitempty"`
	// Session and Attempt are what the proxy told of itself at the
	// handshake: by these a backend could restore a session's state.
	Session string `json:"session,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	// People is how many are in the room.
	People int `json:"people,omitempty"`
	// At comes back in a pong as it was.
	At float64 `json:"at,omitempty"`
}

// room passes what one member says on to all. Its zero value is empty.
type room struct {
	mu      sync.Mutex
	members map[*member]struct{}
}

// member is one connection in the room.
type member struct {
	conn   *websocket.Conn
	outbox chan said
	// leave ends the membership.
	leave context.CancelFunc
}

// ServeHTTP makes the client a member until either side ends.
func (r *room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	conn, err := websocket.Accept(w, req, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxSaid)
	// The request's context ends with the server and with this handler.
	ctx, leave := context.WithCancel(req.Context())
	defer leave()
	m := &member{conn: conn, outbox: make(chan said, outboxLen), leave: leave}
	m.outbox <- said{Op: "welcome", Session: req.Header.Get("Stent-Session"), Attempt: req.Header.Get("Stent-Attempt")}
	if !r.enter(m) {
		conn.Close(websocket.StatusTryAgainLater, "the room is full")
		return
	}
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		defer leave() // a reader without a writer is of no use
		m.write(ctx)
	})
	r.read(ctx, m)
	r.exit(m)
	leave()
}

// read passes on what m says until its connection ends.
func (r *room) read(ctx context.Context, m *member) {
	for {
		_, data, err := m.conn.Read(ctx)
		if err != nil {
			return
		}
		var s said
		if err := json.Unmarshal(data, &s); err != nil {
			m.conn.Close(websocket.StatusUnsupportedData, "not JSON")
			return
		}
		switch s.Op {
		case "say":
			r.tell(said{Op: "said", Name: s.Name, Text: s.Text})
		case "ping":
			m.offer(said{Op: "pong", At: s.At})
		}
	}
}

// write sends what is in the outbox until ctx ends.
func (m *member) write(ctx context.Context) {
	for {
		select {
		case s := <-m.outbox:
			data, err := json.Marshal(s)
			if err != nil {
				return
			}
			within, cancel := context.WithTimeout(ctx, writeTimeout)
			err = m.conn.Write(within, websocket.MessageText, data)
			cancel()
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// offer gives s to m, unless its outbox is full: then m has stopped reading
// and has to leave.
func (m *member) offer(s said) {
	select {
	case m.outbox <- s:
	default:
		m.leave()
	}
}

func (r *room) enter(m *member) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.members) >= maxMembers {
		return false
	}
	if r.members == nil {
		r.members = make(map[*member]struct{})
	}
	r.members[m] = struct{}{}
	r.tellLocked(said{Op: "people", People: len(r.members)})
	return true
}

func (r *room) exit(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, m)
	r.tellLocked(said{Op: "people", People: len(r.members)})
}

// tell gives s to every member.
func (r *room) tell(s said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked(s)
}

// tellLocked is tell with r.mu held; offers never wait.
func (r *room) tellLocked(s said) {
	for m := range r.members {
		m.offer(s)
	}
}
