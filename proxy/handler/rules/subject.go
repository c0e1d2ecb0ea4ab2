package rules

import (
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// session is what expressions can ask about a session.
type session interface {
	Key() string
	ID() string
	Route() string
	Attempt() int
	Header() http.Header
	Claims() map[string]any
	Log() *zap.Logger
}

// subject is one session as expressions see it. What stays the same for the
// session's life is boxed once, when a message first needs it.
type subject struct {
	session session

	boxed          bool
	key, id, route any
	headers        any
}

// fill puts the names in u into an environment.
func (s *subject) fill(environment map[string]any, u uses) {
	const ofSession = usesSession | usesID | usesRoute | usesAttempt | usesHeaders | usesClaims
	if u&ofSession == 0 {
		return
	}
	if !s.boxed {
		s.box(u)
	}
	if u&usesSession != 0 {
		environment["session"] = s.key
	}
	if u&usesID != 0 {
		environment["id"] = s.id
	}
	if u&usesRoute != 0 {
		environment["route"] = s.route
	}
	if u&usesAttempt != 0 {
		environment["attempt"] = s.session.Attempt()
	}
	if u&usesHeaders != 0 {
		environment["headers"] = s.headers
	}
	if u&usesClaims != 0 {
		// Not kept: a token may be renewed.
		environment["claims"] = s.session.Claims()
	}
}

func (s *subject) box(u uses) {
	s.boxed = true
	if u&usesSession != 0 {
		s.key = s.session.Key()
	}
	if u&usesID != 0 {
		s.id = s.session.ID()
	}
	if u&usesRoute != 0 {
		s.route = s.session.Route()
	}
	if u&usesHeaders != 0 {
		s.headers = oneLine(s.session.Header())
	}
}

// oneLine joins the values of each field as RFC 9110 section 5.3 allows.
func oneLine(h http.Header) map[string]string {
	lines := make(map[string]string, len(h))
	for name, values := range h {
		lines[name] = strings.Join(values, ", ")
	}
	return lines
}
