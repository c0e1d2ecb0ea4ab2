package plug

import (
	"bufio"
	"net"
	"net/http"
)

// Answer is a ResponseWriter that knows what became of it.
type Answer struct {
	http.ResponseWriter
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
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *Answer) Write(p []byte) (int, error) {
	if a.Status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.Bytes += int64(n)
	return n, err
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
