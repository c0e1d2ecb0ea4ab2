package admin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// maxMessage bounds a pushed message, in bytes.
const maxMessage = 1 << 20

// message is what is pushed, and to which side.
type message struct {
	to   proxy.Side
	typ  proxy.Type
	data []byte
}

// parseMessage reads the message of r. The side that it goes to is toDefault
// where the query names none, if there is a default.
func parseMessage(w http.ResponseWriter, r *http.Request, toDefault string) (message, *plug.Problem) {
	var m message
	q, problem := parseQuery(r)
	if problem != nil {
		return m, problem
	}
	to := q.Get("to")
	if to == "" {
		to = toDefault
	}
	switch to {
	case "client":
		m.to = proxy.Client
	case "upstream":
		m.to = proxy.Upstream
	default:
		return m, badRequest("to must be client or upstream")
	}
	if m.typ, problem = messageType(r.Header.Get("Content-Type")); problem != nil {
		return m, problem
	}
	var err error
	m.data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return m, &plug.Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("a message may have %d bytes", maxMessage), Close: true}
	}
	if err != nil {
		p := badRequest("the message could not be read to its end")
		p.Close = true
		return m, p
	}
	if m.typ == proxy.Text && !utf8.Valid(m.data) {
		return m, badRequest("the text is not UTF-8")
	}
	return m, nil
}

// messageType is the type of message that a media type stands for.
func messageType(contentType string) (proxy.Type, *plug.Problem) {
	media, params, err := mime.ParseMediaType(contentType)
	if err == nil {
		switch media {
		case "text/plain":
			if charset, ok := params["charset"]; !ok || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii") {
				return proxy.Text, nil
			}
		case "application/octet-stream":
			return proxy.Binary, nil
		}
	}
	return 0, &plug.Problem{Status: http.StatusUnsupportedMediaType, Detail: "want text/plain in UTF-8 or application/octet-stream"}
}

// pushToSession sends a message to one side of a session.
func (a *api) pushToSession(w http.ResponseWriter, r *http.Request) *plug.Problem {
	s, problem := a.session(r)
	if problem != nil {
		return problem
	}
	m, problem := parseMessage(w, r, "")
	if problem != nil {
		return problem
	}
	var pushed struct {
		Result string `json:"result"`
	}
	switch s.Push(m.to, m.typ, m.data) {
	case proxy.Written:
		pushed.Result = "written"
	case proxy.Held:
		pushed.Result = "held"
	case proxy.Gone:
		pushed.Result = "gone"
	case proxy.Full:
		p := &plug.Problem{Status: http.StatusServiceUnavailable, Detail: "this side does not take what waits for it already"}
		return p.Set("Retry-After", "1")
	}
	return a.answer(w, pushed)
}
