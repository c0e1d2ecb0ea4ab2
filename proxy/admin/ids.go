package admin

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// reached says how many sessions a request to a socket id has reached.
type reached struct {
	Sessions int `json:"sessions"`
}

// closeID ends all sessions of a socket id.
func (a *api) closeID(w http.ResponseWriter, r *http.Request) *plug.Problem {
	end, problem := parseClose(r)
	if problem != nil {
		return problem
	}
	found := a.proxy.SessionsWithID(r.PathValue("id"))
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
	return a.answer(w, reached{pushAll(a.proxy.SessionsWithID(r.PathValue("id")), m)})
}

// maxPushing bounds the sessions that one request pushes to at a time.
const maxPushing = 64

// pushAll pushes to all sessions and returns how many have taken the
// message. A push may wait for a slow client; the others don't wait with it.
func pushAll(sessions []*proxy.Session, m message) int {
	var taken atomic.Int64
	var pushing sync.WaitGroup
	places := make(chan struct{}, maxPushing)
	for _, s := range sessions {
		places <- struct{}{}
		pushing.Go(func() {
			defer func() { <-places }()
			switch s.Push(m.to, m.typ, m.data) {
			case proxy.Written, proxy.Held:
				taken.Add(1)
			case proxy.Gone, proxy.Full:
			}
		})
	}
	pushing.Wait()
	return int(taken.Load())
}
