package longpoll

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// The statuses that a client knows, in the body; the answer's own is 200.
const (
	statusMessages  = http.StatusOK
	statusNothing   = http.StatusNoContent
	statusForbidden = http.StatusForbidden
	statusTimeout   = http.StatusRequestTimeout
	statusGone      = http.StatusGone
	statusFailed    = http.StatusInternalServerError
)

// reply is the body of an answer to a GET.
type reply struct {
	Status   int      `json:"status"`
	Token    string   `json:"token,omitempty"`
	Messages []string `json:"messages"`
}

// Opened tells the client of its session.
func Opened(w http.ResponseWriter, token string) {
	write(w, http.StatusOK, reply{statusGone, token, []string{}})
}

// Tell answers a poll. What the client hears of an end makes it come back:
// with 403 it sees the socket close with 1008, as it would over a WebSocket,
// and with 500 with 1011. A session that is gone without a word would be
// answered with 410, which older clients take for a new connection on which
// they are still joined.
func Tell(w http.ResponseWriter, token string, n News) {
	r := reply{Status: statusMessages, Token: token, Messages: n.Messages}
	switch {
	case n.Code == closePolicy:
		r.Status = statusForbidden
	case n.Code != 0:
		r.Status = statusFailed
	case len(n.Messages) == 0:
		r.Status = statusNothing
	}
	if r.Messages == nil {
		r.Messages = []string{}
	}
	write(w, http.StatusOK, r)
}

// closePolicy is the close code of those that may not (any longer).
const closePolicy = 1008

// Took says that a POST is on its way.
func Took(w http.ResponseWriter) { status(w, statusMessages) }

// Gone answers a POST for a session that is over or never was.
func Gone(w http.ResponseWriter) { status(w, statusGone) }

// Timeout answers a POST that the session did not take in time.
func Timeout(w http.ResponseWriter) { status(w, statusTimeout) }

func status(w http.ResponseWriter, code int) {
	write(w, http.StatusOK, struct {
		Status int `json:"status"`
	}{code})
}

func write(w http.ResponseWriter, code int, body any) {
	b, _ := json.Marshal(body) // strings and numbers: it can't fail
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a client that went away does not read its answer
}

// Preflight answers a CORS preflight. Any origin may ask: an origin plug
// judges the request that follows.
func Preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if asked := r.Header["Access-Control-Request-Headers"]; len(asked) > 0 {
		h["Access-Control-Allow-Headers"] = asked
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Max-Age", "3600")
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// Answer is a ResponseWriter on a long-poll path. It lets pages of other
// origins read the answer, and turns a refusal by whomever into one that
// phoenix.js takes for a failed connection: of a status that it does not know
// it would make an exception and never try again.
type Answer struct {
	http.ResponseWriter
	// Refused is the status of such a refusal; 0 where there was none.
	Refused int

	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (a *Answer) WriteHeader(code int) {
	if a.begun || code < 200 {
		a.ResponseWriter.WriteHeader(code)
		return
	}
	a.begun = true
	h := a.Header()
	if h["Access-Control-Allow-Origin"] == nil {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if code < 400 {
		a.ResponseWriter.WriteHeader(code)
		return
	}
	a.Refused = code
	failure := struct {
		Status    int    `json:"status"`
		Title     string `json:"title"`
		RequestID string `json:"request_id,omitempty"`
	}{statusFailed, http.StatusText(code), h.Get("X-Request-Id")}
	if code == http.StatusUnauthorized || code == http.StatusForbidden {
		// Phoenix's own form. A browser would ask for a password, too.
		h.Del("WWW-Authenticate")
		failure.Status, code = statusForbidden, http.StatusOK
	}
	for _, name := range []string{"Transfer-Encoding", "Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	write(a.ResponseWriter, code, failure)
}

// Write implements http.ResponseWriter. The body of a refusal was written.
func (a *Answer) Write(p []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	if a.Refused != 0 {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap gives http.ResponseController the rest of the writer's abilities.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
