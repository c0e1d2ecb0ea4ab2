package plug

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// Answer is a ResponseWriter that knows what became of it.
type Answer struct {
	http.ResponseWriter
	// Info says how long the client may take no data; nil is for ever.
	Info *Info
	// Status is the final status; 0 while there is none.
	Status int
	// Bytes counts the body.
	Bytes int64
	// Hijacked says that a session has taken the connection over.
	Hijacked bool
}

// Observe returns w as an Answer: w itself where it is one already.
func Observe(w http.ResponseWriter) *Answer {
	if a, ok := w.(*Answer); ok {
		return a
	}
	return &Answer{ResponseWriter: w}
}

// WriteHeader implements http.ResponseWriter. Informational statuses (1xx)
// go out and are not the answer. An answer without a Content-Type, such as a
// backend's, stays without: net/http would guess one.
func (a *Answer) WriteHeader(status int) {
	if a.Status == 0 && status >= 200 {
		a.Status = status
		if h := a.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil
		}
	}
	a.pace()
	a.ResponseWriter.WriteHeader(status)
}

// pacedPart is what a client is given a stall's time for: a slow one may need
// longer for all of a large body.
const pacedPart = 32 << 10

// Write implements http.ResponseWriter.
func (a *Answer) Write(p []byte) (int, error) {
	if a.Status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	written := 0
	for {
		a.pace()
		n, err := a.ResponseWriter.Write(p[written:min(written+pacedPart, len(p))])
		a.Bytes += int64(n)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// Finish is called when the answer is written. The client has its time for
// what net/http has yet to send, however long ago the rest was.
func (a *Answer) Finish() {
	if !a.Hijacked {
		a.pace()
	}
}

// pace sets the time by which the client has to take what is written next.
// net/http clears it after the request, and who hijacks does.
func (a *Answer) pace() {
	if a.Info != nil && a.Info.Stall > 0 {
		// A writer that has no deadlines is not a client that could stall.
		_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(a.Info.Stall))
	}
}

// Hijack implements http.Hijacker.
func (a *Answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.Hijacked = true
	}
	return conn, rw, err
}

// Unwrap gives http.ResponseController the rest of the writer's abilities.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
