package plug

import (
	"net/http"
	"net/netip"
	"slices"

	"github.com/stentproxy/stent/config"
)

// ip admits requests by the client's address, which is the rightmost one
// that no trusted proxy has. Others get 403, and so does who has no address.
func ip(c *config.IPPlug, _ Env) (Compiled, error) {
	allow, deny := c.Allow, c.Deny
	refusal := &Problem{Status: http.StatusForbidden, Detail: "requests from this address are not admitted"}
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client := From(r).ClientIP.Unmap()
			if !client.IsValid() || within(deny, client) || len(allow) > 0 && !within(allow, client) {
				refusal.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

func within(ranges []config.CIDR, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(c config.CIDR) bool { return c.Contains(addr.WithZone("")) })
}
