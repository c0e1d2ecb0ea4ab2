package longpoll

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// lastWords is how long the session's end of the connection may stay open
// behind its close frame.
const lastWords = 10 * time.Second

// readSize is more than any control frame takes.
const readSize = 4 << 10

// read takes the answer to the handshake and then the session's frames, to
// the end of the connection.
func (s *Session) read() {
	defer s.conn.Close()
	r := bufio.NewReaderSize(s.conn, readSize)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		s.head <- nil
		s.over(abnormal)
		return
	}
	s.head <- resp.Header
	code := s.readFrames(r)
	s.over(code)
	if code != abnormal {
		s.conn.SetReadDeadline(time.Now().Add(lastWords))
		io.Copy(io.Discard, r) // the other end closes; nothing follows a close frame
	}
}

// readFrames returns the code that the session was closed with.
func (s *Session) readFrames(r *bufio.Reader) int {
	scan := frame.Scanner{Limit: s.limit}
	var message []byte
	need := 1
	for {
		if _, err := r.Peek(need); err != nil {
			return abnormal
		}
		b, _ := r.Peek(r.Buffered())
		head := 0
		if scan.AtFrame() {
			_, head, _ = frame.ParseHeader(b) // the scanner says what is wrong with it
		}
		event, n, err := scan.Next(b)
		if errors.Is(err, frame.ErrTooBig) {
			s.control.Store(closing(frame.CodeTooBig, "message too big for long poll"))
			s.answer()
			return frame.CodeTooBig
		}
		if err != nil {
			return abnormal // of our own making
		}
		switch event {
		case frame.More:
			need = len(b) + 1
			continue
		case frame.Data, frame.Final:
			message = append(message, b[head:n]...)
			if event == frame.Final {
				s.push(encode(scan.Type(), message))
				message = nil
			}
		case frame.Control:
			payload := b[head:n]
			switch scan.Header().Opcode {
			case frame.Ping:
				s.control.Store(control(frame.Pong, payload))
				s.answer()
			case frame.Close:
				s.control.Store(control(frame.Close, payload))
				s.answer()
				if code, _, err := frame.ParseClose(payload); err == nil && code != 0 {
					return code
				}
				return noStatus
			}
		}
		r.Discard(n)
		need = 1
	}
}

// noStatus stands for a close frame without a code (RFC 6455 section 7.4.1).
const noStatus = 1005

// encode is a message as an element of a poll's answer. Those are strings:
// binary messages become base64, as they are on their way up.
func encode(t frame.Opcode, data []byte) string {
	if t == frame.Binary {
		return base64.StdEncoding.EncodeToString(data)
	}
	return string(data)
}

func closing(code int, reason string) *[]byte {
	return control(frame.Close, frame.AppendClose(nil, code, reason))
}

func control(op frame.Opcode, payload []byte) *[]byte {
	b := frame.AppendFrame(nil, header(op), payload)
	return &b
}
