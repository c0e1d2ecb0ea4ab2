package testbackend

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// ClientConfig says how a client behaves.
type ClientConfig struct {
	// Every is how often it sends, while it is answered; see Pace.
	Every time.Duration
	// Sizes are those of what it sends, drawn at random.
	Sizes []int
	// Fragments is how many frames make one message; 0 and 1 mean one.
	Fragments int
	// Pause is made before each fragment but the last.
	Pause time.Duration
	// Deflate offers permessage-deflate.
	Deflate bool
	// HTTP dials; nil is http.DefaultClient.
	HTTP *http.Client
}

// Client sends numbered messages and checks those that come: within one
// attempt they have no gap, and attempts rise.
type Client struct {
	// ID is its number, from 1.
	ID     uint32
	config ClientConfig
	conn   *websocket.Conn

	stop    chan struct{}
	writing chan struct{} // closed when nothing more is sent
	reading chan struct{} // closed when the connection has ended

	sent   atomic.Uint32 // number of the last message handed to the socket
	acked  atomic.Uint32 // highest number that was answered
	mark   atomic.Uint32
	flowed atomic.Int64 // Unix nanoseconds of the first answer behind mark

	mu     sync.Mutex
	got    map[uint32]uint32 // by attempt: the number of its last message
	faults faults
	err    error // how the connection ended
}

// Dial connects client id and lets it speak until Stop.
func Dial(ctx context.Context, url string, id uint32, c ClientConfig) (*Client, error) {
	options := &websocket.DialOptions{HTTPClient: c.HTTP, CompressionMode: websocket.CompressionDisabled}
	if c.Deflate {
		options.CompressionMode, options.CompressionThreshold = websocket.CompressionNoContextTakeover, HeaderSize+1
	}
	conn, _, err := websocket.Dial(ctx, fmt.Sprintf("%s?client=%d", url, id), options)
	if err != nil {
		return nil, fmt.Errorf("dial client %d: %w", id, err)
	}
	conn.SetReadLimit(-1)
	cl := &Client{ID: id, config: c, conn: conn, stop: make(chan struct{}),
		writing: make(chan struct{}), reading: make(chan struct{}), got: make(map[uint32]uint32)}
	go cl.read()
	go cl.write()
	return cl, nil
}

func (c *Client) read() {
	defer close(c.reading)
	var attempt uint32
	for {
		_, data, err := c.conn.Read(context.Background())
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
		m, err := Parse(data)
		c.mu.Lock()
		switch last := c.got[m.Stream]; {
		case err != nil:
			c.faults.add("client %d got: %v", c.ID, err)
		case m.Stream < attempt:
			c.faults.add("client %d got a message of attempt %d after %d", c.ID, m.Stream, attempt)
		case m.Number != last+1:
			c.faults.add("client %d got %d after %d of attempt %d", c.ID, m.Number, last, m.Stream)
		}
		attempt = max(attempt, m.Stream)
		c.got[m.Stream] = m.Number
		c.mu.Unlock()
		if m.Ack > c.acked.Load() {
			c.acked.Store(m.Ack)
			if m.Ack > c.mark.Load() {
				c.flowed.CompareAndSwap(0, time.Now().UnixNano())
			}
		}
	}
}

func (c *Client) write() {
	defer close(c.writing)
	// Clients that were started together don't all speak together.
	wait := time.NewTimer(c.config.Every * time.Duration(c.ID%16) / 16)
	defer wait.Stop()
	for n := uint32(1); ; n++ {
		select {
		case <-wait.C:
		case <-c.stop:
			return
		case <-c.reading:
			return
		}
		wait.Reset(c.Pace())
		c.sent.Store(n)
		m := Message{Stream: c.ID, Number: n}
		if write(context.Background(), c.conn, m, pick(c.config.Sizes), c.config.Fragments, c.config.Pause) != nil {
			return
		}
	}
}

// Pace is the pause between two messages. The more of them are not answered
// the longer it is, so that a machine too slow for all its clients is not
// buried under what they say: then every session would stand still.
func (c *Client) Pace() time.Duration {
	const behind = 8
	return c.config.Every * time.Duration(1+(c.sent.Load()-c.acked.Load())/behind)
}

// Mark begins a measurement that ends with the answer to a message that is
// not sent yet.
func (c *Client) Mark() {
	c.flowed.Store(0)
	c.mark.Store(c.sent.Load())
	c.flowed.Store(0)
}

// Flowing returns when the measurement ended, or false while it has not.
func (c *Client) Flowing() (time.Time, bool) {
	at := c.flowed.Load()
	return time.Unix(0, at), at != 0
}

// Ended returns how the connection ended, and false while it lives.
func (c *Client) Ended() (error, bool) {
	select {
	case <-c.reading:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err, true
	default:
		return nil, false
	}
}

// Sent returns how many messages the client has sent.
func (c *Client) Sent() uint32 { return c.sent.Load() }

// Acked returns the number of the last message that was answered.
func (c *Client) Acked() uint32 { return c.acked.Load() }

// Quiet stops sending and returns when the last message is handed to the
// socket.
func (c *Client) Quiet() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	<-c.writing
}

// Close closes the connection with 1000 and joins its goroutines.
func (c *Client) Close() error {
	c.Quiet()
	err := c.conn.Close(websocket.StatusNormalClosure, "")
	<-c.reading
	return err
}

// Got returns the number of the last message of each attempt.
func (c *Client) Got() map[uint32]uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.got)
}

// Faults returns what broke the rule that no message is torn, out of order
// or there twice, on its way to this client.
func (c *Client) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults.all()
}
