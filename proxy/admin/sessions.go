package admin

import (
	"net/http"
	"net/url"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// filter chooses sessions; empty fields choose all.
type filter struct {
	route, upstream, target, id string
	state                       *proxy.State
}

func newFilter(q url.Values) (filter, *plug.Problem) {
	f := filter{route: q.Get("route"), upstream: q.Get("upstream"), target: q.Get("target"), id: q.Get("id")}
	if name := q.Get("state"); name != "" {
		f.state = new(proxy.State)
		if err := f.state.UnmarshalText([]byte(name)); err != nil {
			return f, badRequest(err.Error())
		}
	}
	return f, nil
}

func (f *filter) match(s *proxy.Session) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(f.route, s.Route()) && is(f.upstream, s.Upstream()) && is(f.id, s.ID()) &&
		(f.state == nil || *f.state == s.State()) &&
		(f.target == "" || f.target == s.Target())
}

// listSessions answers one page of the sessions that the query chooses.
func (a *api) listSessions(w http.ResponseWriter, r *http.Request) *plug.Problem {
	q, problem := parseQuery(r)
	if problem != nil {
		return problem
	}
	f, problem := newFilter(q)
	if problem != nil {
		return problem
	}
	limit, problem := number(q, "limit", 1, defaultLimit)
	if problem != nil {
		return problem
	}
	return a.answer(w, list(a.proxy.Sessions(), f, q.Get("cursor"), min(limit, maxLimit)))
}

// session finds the session that the path names.
func (a *api) session(r *http.Request) (*proxy.Session, *plug.Problem) {
	if s := a.proxy.Session(r.PathValue("session")); s != nil {
		return s, nil
	}
	return nil, notFound("no living session has this key")
}

// showSession answers one session.
func (a *api) showSession(w http.ResponseWriter, r *http.Request) *plug.Problem {
	s, problem := a.session(r)
	if problem != nil {
		return problem
	}
	return a.answer(w, s.Info())
}

// closeSession ends one session.
func (a *api) closeSession(w http.ResponseWriter, r *http.Request) *plug.Problem {
	end, problem := parseClose(r)
	if problem != nil {
		return problem
	}
	s, problem := a.session(r)
	if problem != nil {
		return problem
	}
	s.Close(end.code, end.reason)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
