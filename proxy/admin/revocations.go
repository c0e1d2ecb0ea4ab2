package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/plug"
)

// maxRevocation bounds the body of a request about a revocation, in bytes.
const maxRevocation = 8 << 10

// revocation is what is refused, and until when; nil is until it is restored.
type revocation struct {
	ID    string     `json:"id,omitempty"`
	JTI   string     `json:"jti,omitempty"`
	Until *time.Time `json:"until,omitempty"`
}

// parseRevocation reads the body of r.
func parseRevocation(w http.ResponseWriter, r *http.Request) (proxy.Revocation, *plug.Problem) {
	var body revocation
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRevocation))
	dec.DisallowUnknownFields()
	err := dec.Decode(&body)
	if err == nil {
		if _, rest := dec.Token(); !errors.Is(rest, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return proxy.Revocation{}, badRequest(`want {"id": "…"} or {"jti": "…"}, with "until" as in RFC 3339`)
	}
	if (body.ID == "") == (body.JTI == "") {
		return proxy.Revocation{}, badRequest("want one of id and jti")
	}
	one := proxy.Revocation{ID: body.ID, TokenID: body.JTI}
	if body.Until != nil {
		one.Until = *body.Until
	}
	return one, nil
}

// listRevocations shows those in force.
func (a *api) listRevocations(w http.ResponseWriter, _ *http.Request) *plug.Problem {
	var list struct {
		Revocations []revocation `json:"revocations"`
	}
	list.Revocations = []revocation{}
	for _, one := range a.proxy.Revocations() {
		shown := revocation{ID: one.ID, JTI: one.TokenID}
		if !one.Until.IsZero() {
			until := one.Until.UTC()
			shown.Until = &until
		}
		list.Revocations = append(list.Revocations, shown)
	}
	return a.answer(w, list)
}

// revoke ends the sessions of an id or token, and refuses new ones.
func (a *api) revoke(w http.ResponseWriter, r *http.Request) *plug.Problem {
	one, problem := parseRevocation(w, r)
	if problem != nil {
		return problem
	}
	if !one.Until.IsZero() && !one.Until.After(time.Now()) {
		return badRequest("until is over")
	}
	ended, err := a.proxy.Revoke(one)
	if err != nil {
		return &plug.Problem{Status: http.StatusServiceUnavailable, Detail: err.Error()}
	}
	return a.answer(w, reached{ended})
}

// restore takes a revocation back. Sessions that it has ended stay so.
func (a *api) restore(w http.ResponseWriter, r *http.Request) *plug.Problem {
	one, problem := parseRevocation(w, r)
	if problem != nil {
		return problem
	}
	if !a.proxy.Restore(one) {
		return notFound("nothing of this id or jti is revoked")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
