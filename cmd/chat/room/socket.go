package room

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
)

const (
	// outboxLen bounds what waits for one client; who takes nothing for that
	// long is put out.
	outboxLen = 256
	// maxTopics bounds the channels of one socket.
	maxTopics = 32
	// maxMessage bounds a message of a client, in bytes.
	maxMessage = 64 << 10
	// writeTimeout bounds the writing of one message.
	writeTimeout = 10 * time.Second
	// silence is how long a client may be quiet: phoenix.js sends a heartbeat
	// each 30 seconds.
	silence = time.Minute
)

// errClosed says that the socket is about to end.
var errClosed = errors.New("the socket is closed")

// socket is one client's connection.
type socket struct {
	// static
	server *Server
	user   User
	conn   *websocket.Conn
	outbox chan []byte
	// end ends the socket; its cause says with which close code.
	end context.CancelCauseFunc

	// owned by read
	channels map[string]*channel
}

// ended is why the server ends a socket.
type ended struct {
	code   websocket.StatusCode
	reason string
}

func (e ended) Error() string { return e.reason }

// serve runs the socket until either side ends.
func (s *socket) serve(ctx context.Context) {
	ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	if !s.server.hub.connect(s, s.server.limit()) {
		s.conn.Close(websocket.StatusTryAgainLater, "too many sockets")
		return
	}
	defer s.server.hub.disconnect(s)
	if !s.user.Expires.IsZero() {
		expiry := time.AfterFunc(time.Until(s.user.Expires), func() { s.end(ended{websocket.StatusPolicyViolation, "token expired"}) })
		defer expiry.Stop()
	}
	// The library ends the connection when the context of a Read does. A
	// close frame of ours goes first.
	reading, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()
	var writer sync.WaitGroup
	writer.Go(func() {
		defer stopReading()
		s.write(ctx)
		var e ended
		switch {
		case errors.As(context.Cause(ctx), &e):
			s.conn.Close(e.code, e.reason)
		case ctx.Err() != nil:
			s.conn.Close(websocket.StatusServiceRestart, "")
		}
	})
	s.end(s.read(ctx, reading))
	for _, c := range s.channels {
		s.server.hub.exit(c)
	}
	writer.Wait()
}

// read answers what the client sends until its connection ends, and returns
// why.
func (s *socket) read(ctx, reading context.Context) error {
	quiet := time.AfterFunc(silence, func() { s.end(ended{websocket.StatusGoingAway, "silent"}) })
	defer quiet.Stop()
	for {
		kind, data, err := s.conn.Read(reading)
		if err != nil {
			return nil
		}
		quiet.Reset(silence)
		parse := ParseFrame
		if kind == websocket.MessageBinary {
			parse = ParseBinary
		}
		f, err := parse(data)
		if err != nil {
			return ended{websocket.StatusUnsupportedData, err.Error()}
		}
		if err := s.receive(ctx, f); err != nil {
			return err
		}
	}
}

// receive answers one frame.
func (s *socket) receive(ctx context.Context, f Frame) error {
	if f.Topic == systemTopic {
		if f.Event == eventHeartbeat {
			return s.reply(f, nil, nil)
		}
		return s.reply(f, refusal("unmatched topic"), nil)
	}
	c := s.channels[f.Topic]
	switch {
	case f.Event == eventJoin:
		return s.join(ctx, f)
	case c != nil && f.JoinRef != nil && (c.joinRef == nil || *f.JoinRef != *c.joinRef), c == nil:
		// A join that is over, or none: nothing is left to leave.
		if f.Event == eventLeave {
			return s.reply(f, nil, nil)
		}
		return s.reply(f, refusal("unmatched topic"), nil)
	case f.Event == eventLeave:
		s.leave(c)
		return errors.Join(s.reply(f, nil, nil), s.lifecycle(c, eventClose))
	}
	ok, err := any(nil), error(nil)
	if crash := s.contain(c, func() { ok, err = c.handle(ctx, f) }); crash != nil {
		return crash.send
	}
	return s.reply(f, err, ok)
}

// join makes the socket a member of a topic. A second join of the same one
// replaces the first, as in Phoenix.
func (s *socket) join(ctx context.Context, f Frame) error {
	if old := s.channels[f.Topic]; old != nil {
		s.leave(old)
		if err := s.lifecycle(old, eventClose); err != nil {
			return err
		}
	}
	if len(s.channels) >= maxTopics {
		return s.reply(f, refusal("too many topics"), nil)
	}
	joinRef := f.JoinRef
	if joinRef == nil {
		joinRef = f.Ref
	}
	c := &channel{socket: s, topic: f.Topic, joinRef: joinRef}
	f.JoinRef = joinRef
	var err error
	crash := s.contain(c, func() { err = s.server.admits(ctx, s.user, f.Topic) })
	if crash != nil {
		return crash.send
	}
	if err != nil {
		return s.reply(f, err, nil)
	}
	present, ok := s.server.hub.enter(c)
	if !ok {
		return s.reply(f, refusal("too many channels"), nil)
	}
	s.channels[f.Topic] = c
	if err := s.reply(f, nil, nil); err != nil {
		return err
	}
	crash = s.contain(c, func() {
		if err := c.afterJoin(ctx, present); err != nil && !errors.Is(err, errClosed) {
			panic(err)
		}
	})
	if crash != nil {
		return crash.send
	}
	return nil
}

// crash is a channel's panic that the client was told of; send is what came
// of the telling.
type crash struct{ send error }

// contain runs what a channel does. A panic ends that channel alone: its
// client gets phx_error, after which phoenix.js joins again.
func (s *socket) contain(c *channel, do func()) (crashed *crash) {
	defer func() {
		if p := recover(); p != nil {
			s.server.log().Error("a channel crashed", zap.String("topic", c.topic), zap.String("id", s.user.SocketID()),
				zap.String("panic", fmt.Sprint(p)), zap.Stack("stack"))
			s.leave(c)
			crashed = &crash{s.lifecycle(c, eventError)}
		}
	}()
	do()
	return nil
}

func (s *socket) leave(c *channel) {
	s.server.hub.exit(c)
	if s.channels[c.topic] == c {
		delete(s.channels, c.topic)
	}
}

// lifecycle tells the client that its channel has ended.
func (s *socket) lifecycle(c *channel, event string) error {
	return s.send(Frame{JoinRef: c.joinRef, Ref: c.joinRef, Topic: c.topic, Event: event})
}

// reply answers f; a frame without a ref wants no answer.
func (s *socket) reply(f Frame, err error, ok any) error {
	if f.Ref == nil {
		return nil
	}
	answer, err := reply(f, err, ok)
	if err != nil {
		return err
	}
	return s.send(answer)
}

func (s *socket) send(f Frame) error {
	data, err := f.Encode()
	if err != nil {
		return err
	}
	if !s.offer(data) {
		return errClosed
	}
	return nil
}

// offer queues a message and never waits: a full outbox is the end of the
// socket, and phoenix.js comes back with a new one.
func (s *socket) offer(data []byte) bool {
	select {
	case s.outbox <- data:
		return true
	default:
		s.server.overflows.Add(1)
		s.end(ended{websocket.StatusPolicyViolation, "takes too little"})
		return false
	}
}

// write sends what is in the outbox until ctx ends or the client takes no
// more.
func (s *socket) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case data := <-s.outbox:
			one, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			err := s.conn.Write(one, websocket.MessageText, data)
			cancel()
			if err != nil {
				return
			}
		}
	}
}
