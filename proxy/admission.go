package proxy

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// admission applies the limits of the whole process to new sessions.
type admission struct {
	short atomic.Bool // of memory

	mu sync.Mutex
	// guarded by mu
	limits     config.Limits
	handshakes *rate.Limiter // nil: no limit
	sessions   int
	byIP       map[netip.Prefix]int
}

func newAdmission() *admission { return &admission{byIP: make(map[netip.Prefix]int)} }

// set puts limits into force. Sessions above a lower limit stay.
func (a *admission) set(l config.Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case l.HandshakesPerSecond <= 0:
		a.handshakes = nil
	case a.handshakes == nil || l.HandshakesPerSecond != a.limits.HandshakesPerSecond:
		a.handshakes = rate.NewLimiter(rate.Limit(l.HandshakesPerSecond), max(1, int(l.HandshakesPerSecond)))
	}
	a.limits = l
}

// enter admits a session, whose place is given back when its info ends, or
// says why not.
func (a *admission) enter(info *plug.Info) *Problem {
	if a.short.Load() {
		info.Limit = "memory"
		return unavailable("the proxy is short of memory").Set("Retry-After", "5")
	}
	network := plug.Network(info.ClientIP)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.limits.Sessions > 0 && a.sessions >= a.limits.Sessions:
		info.Limit = "sessions"
		return unavailable("the proxy has all the sessions it may have").Set("Retry-After", "5")
	case a.limits.SessionsPerIP > 0 && a.byIP[network] >= a.limits.SessionsPerIP:
		info.Limit = "sessions_per_ip"
		return tooManyRequests("too many sessions are open for this address")
	case a.handshakes != nil && !a.handshakes.Allow():
		info.Limit = "handshakes_per_second"
		return unavailable("too many handshakes at once").Set("Retry-After", "1")
	}
	a.sessions++
	a.byIP[network]++
	info.OnEnd(func() { a.leave(plug.Network(info.ClientIP)) })
	return nil
}

func (a *admission) leave(network netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions--
	if a.byIP[network]--; a.byIP[network] <= 0 {
		delete(a.byIP, network)
	}
}

// tooManyRequests is the answer to a client above a limit of its own.
func tooManyRequests(detail string) *Problem {
	return (&Problem{Status: http.StatusTooManyRequests, Detail: detail}).Set("Retry-After", "5")
}
