package bench

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/stentproxy/stent/proxy/frame"
)

// Server echoes what it gets, frame by frame as it comes, for as little CPU
// as it can: behind a proxy under load it should not be what is measured.
// It is no model of a WebSocket server: it trusts its client to mask and to
// order its fragments.
type Server struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when closed
	work  sync.WaitGroup
}

// NewServer makes a handler that echoes on every path.
func NewServer() *Server { return &Server{conns: make(map[net.Conn]struct{})} }

// ServeHTTP implements http.Handler. It returns when the handshake is made:
// net/http then keeps nothing of it alive.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	key := req.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") || key == "" {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket echo", http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		conn.Close()
		return
	}
	s.conns[conn] = struct{}{}
	s.work.Go(func() {
		defer s.forget(conn)
		sum := sha1.Sum([]byte(key + acceptGUID))
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:])); err == nil {
			echo(conn, rw.Reader)
		}
	})
}

func (s *Server) forget(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// Close ends every connection, and returns when they have ended.
func (s *Server) Close() {
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.work.Wait()
}

// echo serves one connection until its close frame or its end.
func echo(conn net.Conn, r *bufio.Reader) {
	in := make([]byte, minRead)
	held, _ := r.Read(in[:min(r.Buffered(), len(in))])
	var (
		out    []byte
		h      frame.Header
		done   int64 // of the frame at hand
		inside bool
	)
	for {
		b := in[:held]
		out = out[:0]
		for {
			if !inside {
				var n int
				var err error
				if h, n, err = frame.ParseHeader(b); err != nil {
					return
				}
				if n == 0 {
					break
				}
				b = b[n:]
				inside, done = true, 0
				answer := h
				answer.Masked = false
				if h.Opcode == frame.Ping {
					answer.Opcode = frame.Pong
				}
				out = frame.AppendHeader(out, answer)
			}
			part := b[:min(int64(len(b)), h.Length-done)]
			b = b[len(part):]
			frame.Mask(h.Key, int(done&3), part)
			out = append(out, part...)
			if done += int64(len(part)); done < h.Length {
				break
			}
			if inside = false; h.Opcode == frame.Close {
				conn.Write(out)
				return
			}
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
		if held == len(in) && len(in) < maxRead { // there is more than fits
			b = append(make([]byte, 0, maxRead), b...)
			in = b[:maxRead]
		}
		held = copy(in, b)
		n, err := conn.Read(in[held:])
		if n == 0 || err != nil {
			return
		}
		held += n
	}
}
