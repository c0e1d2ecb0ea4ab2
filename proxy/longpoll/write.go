package longpoll

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"os"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// Post lets send write the messages of one request. It waits for its turn, and
// send for the session to take them, until a window is over: ErrTimeout. Body
// is called in turn, so that a session has one body in memory at a time.
func (s *Session) Post(ctx context.Context, body func() (iter.Seq[Message], error)) error {
	until := time.Now().Add(s.table.patience())
	turn, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case s.writing <- struct{}{}:
	case <-turn.Done():
		if err := ctx.Err(); err != nil {
			return err
		}
		return ErrTimeout
	}
	defer s.answer()
	defer func() { <-s.writing }()
	if !time.Now().Before(until) {
		return ErrTimeout
	}
	messages, err := body()
	if err != nil {
		return err
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.table.patience()))
	var b []byte
	for m := range messages {
		b = frame.AppendFrame(b[:0], header(m.Type), m.Data)
		if n, err := s.conn.Write(b); err != nil {
			return s.failed(n, err)
		}
		s.wrote()
	}
	return nil
}

// failed says what a write that failed behind n bytes of a frame means. One
// that is only begun can't be taken back, so the session is over: a client
// that is told of a timeout opens another anyway.
func (s *Session) failed(n int, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrGone
	}
	if n > 0 {
		s.conn.Close()
	}
	return ErrTimeout
}

// answer writes the control frame that waits, unless a request is writing:
// that sees to it then. Of several pings only the latest needs its pong (RFC
// 6455 section 5.5.3).
func (s *Session) answer() {
	for s.control.Load() != nil {
		select {
		case s.writing <- struct{}{}:
		default:
			return
		}
		if b := s.control.Swap(nil); b != nil {
			s.conn.SetWriteDeadline(time.Now().Add(controlTimeout))
			n, err := s.conn.Write(*b)
			switch {
			case err == nil:
				s.wrote()
			case n == 0 && errors.Is(err, os.ErrDeadlineExceeded):
				// The session reads nothing for now, and knows that.
			default:
				s.conn.Close()
			}
		}
		<-s.writing
	}
}

// controlTimeout bounds the writing of a control frame.
const controlTimeout = time.Second

func (s *Session) wrote() { s.written.Store(time.Now().UnixNano()) }

// ping sends a ping where the session has heard nothing from this client for
// two and a half windows. Phoenix's long-poll clients send no heartbeats, and
// its WebSockets close where nothing comes for a minute; to other backends a
// ping is nothing special.
func (s *Session) ping() {
	if time.Since(time.Unix(0, s.written.Load())) < s.table.patience()*5/2 {
		return
	}
	if s.control.CompareAndSwap(nil, control(frame.Ping, nil)) {
		s.answer()
	}
}

// header is that of a whole frame from a client. The key is not to be
// foreseen: the frame goes on to the upstream as it is, through whatever
// stands before that (RFC 6455 section 10.3).
func header(op frame.Opcode) frame.Header {
	h := frame.Header{Fin: true, Opcode: op, Masked: true}
	rand.Read(h.Key[:]) // never fails
	return h
}
