// Package testbackend is a pair of ends for tests of continuity: a WebSocket
// backend and clients for it, which number all that they send and notice
// whatever is torn, out of order or there twice. The backend may run in a
// process of its own, so that it can be killed as a crash kills it; its book
// of what has come is then in the hands of the test.
package testbackend

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Config says how a backend behaves.
type Config struct {
	// Push is how often it says something unasked on each connection; 0 is
	// never. It always answers each message with a small one.
	Push time.Duration
	// Sizes are those of what it pushes, drawn at random.
	Sizes []int
	// Fragments is how many frames make one message; 0 and 1 mean one.
	Fragments int
	// Pause is made before each fragment but the last.
	Pause time.Duration
	// Deflate agrees to permessage-deflate.
	Deflate bool
}

// Server is the backend as an http.Handler. Clients name themselves in the
// query, as Client does.
type Server struct {
	Config
	// Book takes each record; it is safe for concurrent use.
	Book func(Record)

	mu   sync.Mutex
	legs map[*speaker]bool
}

// ServeHTTP serves one leg of a session.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	options := &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled}
	if s.Deflate {
		options.CompressionMode, options.CompressionThreshold = websocket.CompressionNoContextTakeover, HeaderSize+1
	}
	client, _ := strconv.ParseUint(r.URL.Query().Get("client"), 10, 32)
	attempt, _ := strconv.ParseUint(r.Header.Get("Stent-Attempt"), 10, 32)
	// The leg is booked before the proxy can know of it.
	s.Book(Record{Kind: Opened, Client: uint32(client), Attempt: uint32(attempt)})
	c, err := websocket.Accept(w, r, options)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	sp := &speaker{conn: c, config: s.Config, attempt: uint32(attempt)}
	s.track(sp, true)
	defer s.track(sp, false)
	ctx, cancel := context.WithCancel(context.Background())
	var pushing sync.WaitGroup
	if s.Push > 0 {
		pushing.Go(func() { sp.push(ctx) })
	}
	err = s.listen(ctx, c, sp, Record{Client: uint32(client), Attempt: uint32(attempt)})
	cancel()
	pushing.Wait()
	if websocket.CloseStatus(err) != -1 {
		s.Book(Record{Kind: Sent, Client: uint32(client), Attempt: uint32(attempt), Number: sp.number})
	}
}

// listen books and answers what comes, to the end of the connection.
func (s *Server) listen(ctx context.Context, c *websocket.Conn, sp *speaker, rec Record) error {
	for {
		_, data, err := c.Read(ctx)
		if err != nil {
			return err
		}
		m, err := Parse(data)
		rec.Kind, rec.Number = Got, m.Number
		if err != nil || m.Stream != rec.Client {
			// coder/websocket takes a message that the end of the stream has
			// cut for a whole one.
			if _, _, err := c.Read(ctx); err != nil && websocket.CloseStatus(err) == -1 {
				return err
			}
			rec.Kind = Torn
		}
		s.Book(rec)
		// What can't be written shows when the connection is read.
		_ = sp.say(ctx, m.Number, HeaderSize)
	}
}

func (s *Server) track(sp *speaker, add bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.legs == nil {
		s.legs = make(map[*speaker]bool)
	}
	if add {
		s.legs[sp] = true
	} else {
		delete(s.legs, sp)
	}
}

// Len returns how many connections there are.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.legs)
}

// Close closes all connections politely, each between two messages, and
// returns when they are.
func (s *Server) Close(code websocket.StatusCode, reason string) {
	s.mu.Lock()
	var closing sync.WaitGroup
	for sp := range s.legs {
		closing.Go(func() {
			sp.mu.Lock()
			sp.closed = true
			sp.mu.Unlock()
			sp.conn.Close(code, reason)
		})
	}
	s.mu.Unlock()
	closing.Wait()
}

// speaker numbers what one leg sends.
type speaker struct {
	conn    *websocket.Conn
	config  Config
	attempt uint32

	mu     sync.Mutex
	number uint32 // of the last message that was written
	closed bool
}

func (sp *speaker) push(ctx context.Context) {
	tick := time.NewTicker(sp.config.Push)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if sp.say(ctx, 0, pick(sp.config.Sizes)) != nil {
			return
		}
	}
}

func (sp *speaker) say(ctx context.Context, ack uint32, size int) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.closed {
		return net.ErrClosed
	}
	m := Message{Stream: sp.attempt, Number: sp.number + 1, Ack: ack}
	err := write(ctx, sp.conn, m, size, sp.config.Fragments, sp.config.Pause)
	if err != nil {
		sp.closed = true // a message that is not ended locks the connection
		return err
	}
	sp.number++
	return nil
}

// write sends one message, of either type, in a number of frames.
func write(ctx context.Context, c *websocket.Conn, m Message, size, fragments int, pause time.Duration) error {
	t := websocket.MessageText
	if m.Number%2 == 0 {
		t = websocket.MessageBinary
	}
	data := m.Append(make([]byte, 0, max(size, HeaderSize)), size)
	if fragments <= 1 {
		return c.Write(ctx, t, data)
	}
	w, err := c.Writer(ctx, t)
	if err != nil {
		return err
	}
	for part := (len(data) + fragments - 1) / fragments; len(data) > 0; {
		n := min(part, len(data))
		if n < len(data) && pause > 0 {
			time.Sleep(pause)
		}
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return w.Close()
}

func pick(sizes []int) int {
	if len(sizes) == 0 {
		return HeaderSize
	}
	return sizes[rand.IntN(len(sizes))]
}
