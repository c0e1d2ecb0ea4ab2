package admin

import (
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy/plug"
)

// defaultCode is the close code of a kick.
const defaultCode = 1008

// maxReason is the room for a reason in a close frame, in bytes (RFC 6455
// section 5.5: 125 less the code).
const maxReason = 123

// closing is the close frame for the clients that are sent away.
type closing struct {
	code   int
	reason string
}

// parseClose reads code and reason from the query.
func parseClose(r *http.Request) (closing, *plug.Problem) {
	q, problem := parseQuery(r)
	if problem != nil {
		return closing{}, problem
	}
	code, problem := number(q, "code", 0, defaultCode)
	if problem != nil {
		return closing{}, problem
	}
	reason := q.Get("reason")
	switch {
	case !sendable(code):
		return closing{}, badRequest(fmt.Sprintf("close code %d may not be sent: want 1000-1003, 1007-1013 or 3000-4999", code))
	case len(reason) > maxReason:
		return closing{}, badRequest(fmt.Sprintf("the reason has %d bytes, a close frame has room for %d", len(reason), maxReason))
	case !utf8.ValidString(reason):
		return closing{}, badRequest("the reason is not UTF-8")
	}
	return closing{code, reason}, nil
}

// sendable says whether a code may stand in a close frame (RFC 6455 section
// 7.4). 1014 may, but several client libraries reject it.
func sendable(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1013, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
