package plug

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/stentproxy/stent/config"
)

// retryAfter is what a client over the limit is told to wait, in seconds.
// Nobody knows when one of the sessions that it competes with will end; this
// keeps well-behaved clients from asking many times a second.
const retryAfter = "5"

// limit bounds what those that share a key have open and send. Above its
// number of sessions there is 429; a place is held until the session ends, or
// the request where it becomes none. Its rates are kept by the sessions,
// together. Requests without a key (no such header, no id) count together, so
// that leaving it out is no way around the limit.
func limit(c *config.LimitPlug, env Env) (Compiled, error) {
	rated := c.MessagesPerSecond > 0 || c.BytesPerSecond > 0
	switch {
	case c.Sessions < 0 || c.Sessions == 0 && !rated:
		return Compiled{}, config.Within("sessions", fmt.Errorf("%d would let nothing pass", c.Sessions))
	case rated && c.Burst <= 0:
		return Compiled{}, config.Within("burst", fmt.Errorf("%s would let nothing pass", c.Burst))
	}
	key, err := limitKey(c.By, env)
	if err != nil {
		return Compiled{}, config.Within("by", err)
	}
	counts := env.Counts
	if counts == nil {
		counts = new(Counts)
	}
	// The numbers are not part of the name: a reload that changes them goes on
	// counting.
	name := countName{pipeline: env.Pipeline, by: c.By, nth: env.Nth}
	refusal := (&Problem{
		Status: http.StatusTooManyRequests,
		Detail: "too many sessions are open for this " + strings.TrimPrefix(c.By, "header:"),
	}).Set("Retry-After", retryAfter)
	kind, _, _ := strings.Cut(c.By, ":")
	limited := "sessions_by_" + kind
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := name
			name.key = key(r)
			info := From(r)
			if c.Sessions > 0 {
				if !counts.take(name, c.Sessions) {
					info.Limit = limited
					refusal.ServeHTTP(w, r)
					return
				}
				info.OnEnd(func() { counts.release(name) })
			}
			if rated {
				info.Allowances = append(info.Allowances, Allowance{
					Key: AllowanceKey(name), Messages: c.MessagesPerSecond, Bytes: float64(c.BytesPerSecond), Burst: c.Burst.Std(),
				})
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// limitKey returns the function that reads a request's key.
func limitKey(by string, env Env) (func(*http.Request) string, error) {
	switch by {
	case "ip":
		return func(r *http.Request) string { return Network(From(r).ClientIP).String() }, nil
	case "id":
		return func(r *http.Request) string { return short(From(r).ID) }, nil
	case "route":
		if env.Pipeline == "" {
			return nil, fmt.Errorf("the endpoint runs before a route is known; put the limit into a pipeline")
		}
		return func(r *http.Request) string { return From(r).Route }, nil
	}
	field, ok := strings.CutPrefix(by, "header:")
	if !ok || field == "" || strings.ContainsFunc(field, func(c rune) bool { return !isTokenChar(c) }) {
		return nil, fmt.Errorf("%q is none of ip, id, route, header:NAME", by)
	}
	field = http.CanonicalHeaderKey(field)
	return func(r *http.Request) string {
		if From(r).withholds(field) {
			return "" // as where it is dropped at the door
		}
		return short(strings.Join(r.Header[field], ","))
	}, nil
}

// Network is what counts as one address: of IPv6 that is the network of one
// link, which who has one address of it can choose any other in (RFC 4291
// section 2.5.4).
func Network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits) // of no address there is none
	return network
}

// short bounds the memory that a client's own key can claim.
func short(key string) string {
	if len(key) <= sha256.Size {
		return strings.Clone(key) // not a view of the request's whole header
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + string(sum[:])
}
