package room

import (
	"crypto/rand"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"
	"go.uber.org/zap"
)

// defaultSockets bounds a server whose Limit is not set.
const defaultSockets = 10_000

// Path is where phoenix.js connects when it is given "/socket".
const Path = "/socket/websocket"

// Server is the channels server, to be mounted at Path.
type Server struct {
	// Authenticate says who asks; an error refuses with 403, as Phoenix does
	// when connect returns :error.
	Authenticate func(*http.Request) (User, error)
	// Store keeps the messages; nil is a Memory.
	Store Store
	// Log is where crashes are logged; nil is nowhere.
	Log *zap.Logger
	// Limit bounds the sockets; 0 is 10,000.
	Limit int

	once      sync.Once
	memory    Memory
	hub       *hub
	name      string // of this life, so that clients can tell a new one
	overflows atomic.Uint64
	running   sync.WaitGroup
}

func (s *Server) store() Store {
	if s.Store == nil {
		return &s.memory
	}
	return s.Store
}

func (s *Server) log() *zap.Logger {
	if s.Log == nil {
		return zap.NewNop()
	}
	return s.Log
}

func (s *Server) limit() int {
	if s.Limit == 0 {
		return defaultSockets
	}
	return s.Limit
}

func (s *Server) start() { s.once.Do(func() { s.hub, s.name = newHub(), rand.Text() }) }

// ServeHTTP serves one client until either side ends. The request's context
// ends it with 1012.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.start()
	s.running.Add(1)
	defer s.running.Done()
	if vsn := r.URL.Query().Get("vsn"); vsn != "" && vsn != "2.0.0" {
		http.Error(w, "this server speaks vsn=2.0.0", http.StatusForbidden)
		return
	}
	user, err := s.Authenticate(r)
	if err != nil {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	// Like Phoenix's check_origin: pages of other sites get 403.
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxMessage)
	(&socket{
		server: s, user: user, conn: conn,
		outbox: make(chan []byte, outboxLen), channels: make(map[string]*channel),
	}).serve(r.Context())
}

// Disconnect closes the sockets of users that are wanted and returns how
// many, as a broadcast of "disconnect" to their socket id does in Phoenix.
func (s *Server) Disconnect(wanted func(User) bool) int {
	s.start()
	sockets := s.hub.matching(wanted)
	for _, one := range sockets {
		one.end(ended{websocket.StatusPolicyViolation, "disconnected"})
	}
	return len(sockets)
}

// Wait returns when no socket is left.
func (s *Server) Wait() { s.running.Wait() }
