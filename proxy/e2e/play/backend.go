package play

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The answers that every server of the matrix gives.
const (
	Cookie    = "seen=1; Path=/"
	ServerTag = "e2e"
)

// Protocols are the subprotocols of every server, the preferred one first.
var Protocols = []string{"chat.v2", "chat.v1"}

// Choose returns the first of Protocols that was offered.
func Choose(offered []string) string {
	for _, p := range Protocols {
		if slices.Contains(offered, p) {
			return p
		}
	}
	return ""
}

// Offered returns the subprotocols in a request.
func Offered(h http.Header) []string {
	var all []string
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(p))
		}
	}
	return all
}

// Refuse answers requests for /refuse/STATUS and reports whether it did.
func Refuse(w http.ResponseWriter, r *http.Request) bool {
	word, ok := strings.CutPrefix(r.URL.Path, "/refuse/")
	status, err := strconv.Atoi(word)
	if !ok || err != nil {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Retry-After", "7")
	h.Set("WWW-Authenticate", `Bearer realm="e2e"`)
	h.Set("X-Refused", "yes")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"refused":%d}`, status)
	return true
}

// Conn is a server library's connection, as the commands need it.
type Conn interface {
	Text(data string) error
	Binary(data []byte) error
	Fragments(parts [][]byte) error
	Ping(data string) error
	Close(code int, reason string) error
	Abort() error
}

// Reports collects what the servers saw, by the key in each request's query.
type Reports struct {
	mu     sync.Mutex
	events map[string][]string
	change chan struct{}
}

// Add notes an event for key.
func (r *Reports) Add(key, event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = make(map[string][]string)
	}
	r.events[key] = append(r.events[key], strings.TrimSpace(event))
	if r.change != nil {
		close(r.change)
		r.change = nil
	}
}

// Of returns the events of key and a channel that is closed when there are
// more of any key.
func (r *Reports) Of(key string) ([]string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.change == nil {
		r.change = make(chan struct{})
	}
	return slices.Clone(r.events[key]), r.change
}

// Backend is one accepted session of a server.
type Backend struct {
	key     string
	request *http.Request
	conn    Conn
	reports *Reports
}

// NewBackend greets the client where the path asks for it.
func NewBackend(r *http.Request, conn Conn, reports *Reports) (*Backend, error) {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	values, _ := url.ParseQuery(query) // the odd pairs are not the key
	b := &Backend{key: values.Get("k"), request: r, conn: conn, reports: reports}
	if strings.HasPrefix(r.URL.Path, "/greet") {
		return b, conn.Text("welcome")
	}
	return b, nil
}

var shown = []string{"cookie", "authorization", "x-e2e", "sec-websocket-protocol"}

// Message echoes the message, or obeys it.
func (b *Backend) Message(kind string, data []byte) error {
	if kind == "binary" {
		return b.conn.Binary(data)
	}
	command, rest, _ := strings.Cut(string(data), " ")
	switch command {
	case "!request":
		lines := []string{"target " + b.request.RequestURI}
		for _, name := range shown {
			value := strings.Join(b.request.Header.Values(name), ", ")
			lines = append(lines, strings.TrimSpace(name+" "+value))
		}
		return b.conn.Text(strings.Join(lines, "\n"))
	case "!extensions":
		value := strings.Join(b.request.Header.Values("Sec-WebSocket-Extensions"), ", ")
		return b.conn.Text(strings.TrimSpace("extensions " + value))
	case "!close":
		b.reports.Add(b.key, "closes "+rest)
		word, reason, _ := strings.Cut(rest, " ")
		code, _ := strconv.Atoi(word) // none is 0
		return b.conn.Close(code, reason)
	case "!ping":
		return b.conn.Ping(rest)
	case "!fragments":
		return b.conn.Fragments(splitText)
	case "!abort":
		b.reports.Add(b.key, "aborts")
		return b.conn.Abort()
	case "!big":
		size, err := strconv.Atoi(rest)
		if err != nil {
			return fmt.Errorf("size of !big: %w", err)
		}
		return b.conn.Binary(Pattern(size))
	}
	return b.conn.Text(string(data))
}

// splitText is l é g ☃ r, cut inside its two longer characters.
var splitText = [][]byte{unhex("6cc3"), unhex("a967e2"), unhex("988372")}

func unhex(s string) []byte {
	data, _ := hex.DecodeString(s)
	return data
}

// Pong reports a pong and tells the client of it.
func (b *Backend) Pong(data string) error {
	b.reports.Add(b.key, "pong "+data)
	return b.conn.Text("pong " + data)
}

// Closed reports how the session ended: 1005 without a code, 1006 without a
// close frame.
func (b *Backend) Closed(code int, reason string) {
	b.reports.Add(b.key, fmt.Sprintf("close %d %s", code, reason))
}
