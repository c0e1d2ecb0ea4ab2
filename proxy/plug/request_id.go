package plug

import (
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/stentproxy/stent/config"
)

// DefaultRequestIDHeader carries the request's id up and back.
const DefaultRequestIDHeader = "X-Request-Id"

// maxRequestID bounds an id that comes from a trusted proxy: it ends up in
// every log line of its session.
const maxRequestID = 200

// requestID gives each request an id, for its logs, its errors, the upstream
// and the client. An id that a trusted proxy sent is kept.
func requestID(c *config.RequestIDPlug, _ Env) (Compiled, error) {
	name := http.CanonicalHeaderKey(c.Header)
	if name == "" {
		name = DefaultRequestIDHeader
	}
	if err := checkField(name); err != nil {
		return Compiled{}, config.Within("header", err)
	}
	wrap := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := From(r)
			id := r.Header.Get(name)
			if !info.Trusted || !validRequestID(id) {
				id = rand.Text()
			}
			info.RequestID = id
			set := func(h http.Header) { h.Set(name, id) }
			info.EditRequest(set)
			info.EditResponse(set)
			next.ServeHTTP(w, r)
		})
	}
	return Compiled{Wrap: wrap, Believes: []string{name}}, nil
}

// validRequestID says whether id can stand in a header field and a log line.
func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID && strings.IndexFunc(id, func(c rune) bool {
		return c <= ' ' || c > '~'
	}) < 0
}
