package proxy

import (
	"slices"

	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/token"
)

// Revocation refuses a socket id, or one token by its jti.
type Revocation = token.Revocation

// Revoke puts a revocation into force: it ends the sessions that it is about,
// with 1008, and new ones get 401. It returns how many it has ended.
func (p *Proxy) Revoke(r Revocation) (int, error) {
	// Before it looks for sessions: one that is not there yet looks for it.
	if err := p.plugs.Revocations.Add(r); err != nil {
		return 0, err
	}
	ended := p.revokedSessions(r)
	for _, s := range ended {
		s.revoke()
	}
	return len(ended), nil
}

// Restore takes a revocation back, and reports whether it was in force.
func (p *Proxy) Restore(r Revocation) bool { return p.plugs.Revocations.Remove(r) }

// Revocations returns those in force.
func (p *Proxy) Revocations() []Revocation { return p.plugs.Revocations.List() }

func (p *Proxy) revokedSessions(r Revocation) []*Session {
	if r.ID != "" {
		return p.registry.withID(r.ID)
	}
	return slices.DeleteFunc(p.registry.all(), func(s *Session) bool {
		return !slices.Contains(s.info.TokenIDs, r.TokenID)
	})
}

// revoked says whether the session's client is not welcome any more.
func (p *Proxy) revoked(s *Session) bool {
	return p.plugs.Revocations.Refuses(s.info.ID, s.info.TokenIDs...)
}

// revoke ends a session whose token is revoked.
func (s *Session) revoke() { s.end(End{Cause: relay.Expired, Reason: "token revoked"}) }
