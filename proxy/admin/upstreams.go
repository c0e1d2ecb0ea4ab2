package admin

import (
	"errors"
	"net/http"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/upstream"
)

// listUpstreams answers the pools and their targets.
func (a *api) listUpstreams(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	return a.answer(w, struct {
		Upstreams []upstream.PoolInfo `json:"upstreams"`
	}{a.proxy.Pools().Snapshot()})
}

// drainTarget keeps new sessions off a target. Those on it are moved where
// their route has continuity; the others stay, or are ended with close.
func (a *api) drainTarget(w http.ResponseWriter, r *http.Request) *plug.Problem {
	q, problem := parseQuery(r)
	if problem != nil {
		return problem
	}
	end, problem := boolean(q, "close")
	if problem != nil {
		return problem
	}
	pool, target := r.PathValue("pool"), r.PathValue("target")
	if err := a.proxy.Pools().Drain(pool, target); err != nil {
		return targetProblem(err)
	}
	if end {
		a.closeOn(pool, target)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// undrainTarget lets new sessions onto a target again.
func (a *api) undrainTarget(w http.ResponseWriter, r *http.Request) *plug.Problem {
	if err := a.proxy.Pools().Undrain(r.PathValue("pool"), r.PathValue("target")); err != nil {
		return targetProblem(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// targetProblem is the answer to a request about a target.
func targetProblem(err error) *plug.Problem {
	if errors.Is(err, upstream.ErrUnknown) {
		return notFound("there is no such target: " + err.Error())
	}
	return &plug.Problem{Status: http.StatusInternalServerError, Detail: "the target could not be changed"}
}

// closeOn ends the sessions without continuity that are on a draining
// target. Only targets with sessions, or dials under way, are among the leaving.
func (a *api) closeOn(pool, target string) {
	for _, t := range a.proxy.Pools().Leaving() {
		if t.Pool().Name() == pool && t.Name() == target {
			a.proxy.CloseOn(t)
		}
	}
}
