package admin

import (
	"net/http"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// reached says how many sessions a request to a socket id has reached.
type reached struct {
	Sessions int `json:"sessions"`
}

// withID returns the living sessions of a socket id. Sessions without one
// are nobody's.
func (a *api) withID(id string) []*proxy.Session {
	var found []*proxy.Session
	for _, s := range a.proxy.Sessions() {
		if id != "" && s.ID() == id {
			found = append(found, s)
		}
	}
	return found
}

// closeID ends all sessions of a socket id.
func (a *api) closeID(w http.ResponseWriter, r *http.Request) *plug.Problem {
	end, problem := parseClose(r)
	if problem != nil {
		return problem
	}
	found := a.withID(r.PathValue("id"))
	for _, s := range found {
		s.Close(end.code, end.reason)
	}
	return a.answer(w, reached{len(found)})
}

// pushToID sends a message to one side, the client by default, of all
// sessions of a socket id, and counts those that have taken it.
func (a *api) pushToID(w http.ResponseWriter, r *http.Request) *plug.Problem {
	m, problem := parseMessage(w, r, proxy.Client.String())
	if problem != nil {
		return problem
	}
	var n reached
	for _, s := range a.withID(r.PathValue("id")) {
		switch s.Push(m.to, m.typ, m.data) {
		case proxy.Written, proxy.Held:
			n.Sessions++
		case proxy.Gone, proxy.Full:
		}
	}
	return a.answer(w, n)
}
