package proxy

import (
	"fmt"
	"time"

	"github.com/stentproxy/stent/proxy/relay"
)

// SessionInfo is a session as the admin API shows it.
type SessionInfo struct {
	Session      string    `json:"session"`
	ID           string    `json:"id"`
	Route        string    `json:"route"`
	Upstream     string    `json:"upstream"`
	Target       string    `json:"target"`
	State        State     `json:"state"`
	Mode         string    `json:"mode"`
	Engine       string    `json:"engine"`
	Remote       string    `json:"remote"`
	Opened       time.Time `json:"opened"`
	Attempt      int       `json:"attempt"`
	Restarts     int       `json:"restarts"`
	HeldSeconds  float64   `json:"held_seconds"`
	Subprotocol  string    `json:"subprotocol"`
	Client       SideInfo  `json:"client"`
	UpstreamSide SideInfo  `json:"upstream_side"`
	Topics       []string  `json:"topics,omitempty"` // of Phoenix, joined
}

// SideInfo is what one side of a session has sent.
type SideInfo struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"` // payload of messages, as on the wire
	Pings    uint64 `json:"pings"`
}

// Info returns the session as it stands. Its numbers are read one after the
// other while frames flow.
func (s *Session) Info() SessionInfo {
	return SessionInfo{
		Session:      s.Key(),
		ID:           s.ID(),
		Route:        s.Route(),
		Upstream:     s.Upstream(),
		Target:       s.Target(),
		State:        s.State(),
		Mode:         s.route.mode,
		Engine:       s.link.Engine(),
		Remote:       s.Remote(),
		Opened:       s.Opened().UTC(),
		Attempt:      s.Attempt(),
		Restarts:     int(s.restarts.Load()),
		HeldSeconds:  s.HeldFor().Seconds(),
		Subprotocol:  s.Subprotocol(),
		Client:       sideInfo(&s.link.Counters[Client]),
		UpstreamSide: sideInfo(&s.link.Counters[Upstream]),
		Topics:       s.Topics(),
	}
}

func sideInfo(c *relay.Counters) SideInfo {
	return SideInfo{Messages: c.Messages(), Bytes: c.Bytes.Load(), Pings: c.Pings.Load()}
}

// Upstream returns the name of the session's pool, or "none" where the
// handlers are the application.
func (s *Session) Upstream() string { return s.route.upstream }

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(name []byte) error {
	for state := Connecting; state <= Closing; state++ {
		if state.String() == string(name) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("state %q is none of connecting, open, held, closing", name)
}

// RouteInfo is a route as the admin API shows it, with what its scopes give
// it.
type RouteInfo struct {
	Path       string   `json:"path"` // the joined pattern: what sessions name as their route
	Host       string   `json:"host"`
	Methods    []string `json:"methods"`
	Pipelines  []string `json:"pipelines"`
	Plugs      []string `json:"plugs"`
	Handlers   []string `json:"handlers"`
	Mode       string   `json:"mode"`
	Upstream   string   `json:"upstream"`
	HTTP       bool     `json:"http"`
	Continuity bool     `json:"continuity"`
}

// Routes returns the routes in the order in which they are tried.
func (s *Snapshot) Routes() []RouteInfo {
	infos := make([]RouteInfo, len(s.routes))
	for i, rt := range s.routes {
		e := rt.endpoint
		infos[i] = RouteInfo{
			Path:       e.Pattern,
			Host:       e.Host,
			Methods:    append([]string{}, e.Route.Methods...),
			Pipelines:  append([]string{}, e.Pipelines...),
			Plugs:      append([]string{}, e.Plugs()...),
			Handlers:   make([]string, len(rt.handlers)),
			Mode:       rt.mode,
			Upstream:   rt.upstream,
			HTTP:       e.Route.HTTP,
			Continuity: rt.continuity != nil,
		}
		for j, h := range rt.handlers {
			infos[i].Handlers[j] = h.name
		}
	}
	return infos
}
