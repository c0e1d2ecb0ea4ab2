package plug

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Problem is an HTTP error of stent's own, answered as
// application/problem+json (RFC 9457).
type Problem struct {
	Status int
	// Detail tells the client what is wrong with this request. It must not
	// repeat what may be secret, as a query.
	Detail string
	// Header holds fields of the answer beside those of every problem.
	Header http.Header
	// Close ends the connection after the answer, where what follows on it
	// can't be trusted to be a request.
	Close bool
}

// Error implements error.
func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s: %s", p.Status, http.StatusText(p.Status), p.Detail)
}

// Set adds a header field to the answer and returns p.
func (p *Problem) Set(name, value string) *Problem {
	if p.Header == nil {
		p.Header = make(http.Header)
	}
	p.Header.Set(name, value)
	return p
}

// ServeHTTP answers r with the problem.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := From(r)
	// The members are strings and a number: encoding them can't fail.
	body, _ := json.Marshal(struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail,omitempty"`
		RequestID string `json:"request_id,omitempty"`
	}{"about:blank", http.StatusText(p.Status), p.Status, p.Detail, info.RequestID})
	body = append(body, '\n')

	h := w.Header()
	last := p.Close || h.Get("Connection") == "close"
	clear(h)
	info.ApplyResponse(h)
	for name, values := range p.Header {
		h[name] = values
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if last {
		h.Set("Connection", "close")
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		// A client that went away does not read its answer.
		_, _ = w.Write(body)
	}
}
