package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// guard stands before the admin API. Browsers reach loopback too, for any
// page that their user has open: a page's own requests carry its Origin, and
// one whose name was rebound to this address carries that name as Host.
type guard struct {
	log *zap.Logger
	// local says that the socket is a file, which no browser reaches.
	local bool
	// wildcard says that the socket is bound to every address.
	wildcard bool
	// host is the name or address that was configured; may be empty.
	host string
	// terms are those of the configuration in force.
	terms func() config.Admin
}

func newGuard(network, address string, terms func() config.Admin, log *zap.Logger) *guard {
	g := &guard{log: log, local: network == "unix", terms: terms}
	if !g.local {
		g.host = hostOnly(address)
		ip, err := netip.ParseAddr(g.host)
		g.wildcard = g.host == "" || err == nil && ip.IsUnspecified()
	}
	return g
}

// wrap lets through what may come in. Endpoints that are not open ask for
// the token.
func (g *guard) wrap(next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &plug.Info{RequestID: rand.Text()}
		info.EditResponse(func(h http.Header) { h.Set(plug.DefaultRequestIDHeader, info.RequestID) })
		info.ApplyResponse(w.Header())
		answer := plug.Observe(w)
		r = plug.With(r, info)
		defer g.leave(answer, r, info)
		if problem := g.check(r, next); problem != nil {
			problem.ServeHTTP(answer, r)
			return
		}
		next.ServeHTTP(answer, r)
	})
}

func (g *guard) check(r *http.Request, mux *http.ServeMux) *plug.Problem {
	terms := g.terms()
	token := terms.Token.Value()
	handler, _ := mux.Handler(r)
	entitled := isOpen(handler, terms) || authorized(r, token)
	switch {
	// Names that lead to every address are not known here. Where there is a
	// token a page needs it, too, whatever name was rebound.
	case !g.ownHost(r) && !(g.wildcard && token != "" && entitled):
		return &plug.Problem{Status: http.StatusForbidden, Detail: "this host is not the admin API's own"}
	case foreignOrigin(r):
		return &plug.Problem{Status: http.StatusForbidden, Detail: "requests from other origins are refused"}
	case entitled:
		return nil
	}
	p := &plug.Problem{Status: http.StatusUnauthorized, Detail: "the admin API's token is missing or wrong"}
	return p.Set("WWW-Authenticate", `Bearer realm="stent admin"`)
}

// ownHost says whether the request's Host is one of the listener's own.
// Ports don't matter: they may be mapped on the way, and no page gets around
// its Origin by them. Nor can a literal address be rebound, so where the
// socket is bound to every address, all literals will do: a mapped one is
// not known here.
func (g *guard) ownHost(r *http.Request) bool {
	if g.local {
		return true
	}
	host := hostOnly(r.Host)
	if host == "" {
		return false
	}
	if strings.EqualFold(host, "localhost") || strings.EqualFold(host, g.host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return g.wildcard || ip.Unmap().IsLoopback() || ip.Unmap() == localIP(r)
}

// localIP is the address by which the client has reached the listener.
func localIP(r *http.Request) netip.Addr {
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// hostOnly cuts the port off a host, and the brackets of an IPv6 address.
func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

// foreignOrigin says whether a page that is not the admin's own made the
// request. Browsers send "null" for pages that must not be named.
func foreignOrigin(r *http.Request) bool {
	for _, origin := range r.Header["Origin"] {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
			return true
		}
	}
	return false
}

// authorized says whether the request carries the token, where there is one.
// Digests are compared, in constant time: not even the token's length shows.
func authorized(r *http.Request, token string) bool {
	if token == "" {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got, want := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// leave recovers a panic of the request's handler and logs a request that
// may have changed something. Its query is left out: who may log in may not
// always read logs.
func (g *guard) leave(answer *plug.Answer, r *http.Request, info *plug.Info) {
	reason := recover()
	if reason != nil {
		g.log.Error("admin request panicked", zap.String("request_id", info.RequestID),
			zap.String("path", r.URL.Path), zap.Any("panic", reason), zap.Stack("stack"))
		if answer.Status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
		(&plug.Problem{Status: http.StatusInternalServerError, Detail: "the admin API failed to serve this request", Close: true}).ServeHTTP(answer, r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		g.log.Info("admin request", zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Int("status", answer.Status), zap.String("peer", r.RemoteAddr), zap.String("request_id", info.RequestID))
	}
}
