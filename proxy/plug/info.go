package plug

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/stentproxy/stent/proxy/field"
)

// Info is what is known of one request, and of the session that it becomes.
// The front door makes it, plugs add to it, and the session keeps it when the
// request is over.
type Info struct {
	// Set at the front door.

	// Peer is the address at the other end of the connection; invalid where
	// that is not an IP address.
	Peer netip.Addr
	// Trusted says whether Peer is one of the listener's trusted proxies.
	Trusted bool
	// ClientIP is the rightmost untrusted address on the way here.
	ClientIP netip.Addr
	// Scheme is what the client speaks: http or https.
	Scheme string
	// Host is the host that the client asked for, with its port.
	Host string
	// Withheld are the folded names of the header fields that plugs read and
	// that don't go up as the client sent them, since a plug sets them.
	Withheld []string
	// ClientCert is what the client's certificate says; nil without one.
	ClientCert *ClientCert

	// Set on the way, by the one goroutine that serves the request.

	RequestID string
	// Route is the joined pattern of the request's route; empty before
	// routing.
	Route string
	// Stall is how long the client may take no data of an answer; 0 is for
	// ever. It is the route's once that is known.
	Stall time.Duration
	// ID is the socket id ("user_socket:42") that an auth plug gave; before,
	// or without one, the name in the client's certificate.
	ID string
	// Limit names the limit that has refused the request, for the metrics.
	Limit string
	// Refused is the status with which a long-poll client was refused a
	// session; what it was told has to look different.
	Refused int
	// Claims are what an auth plug learned of the client.
	Claims map[string]any
	// Allowances are the rates that the client's messages count under.
	Allowances []Allowance
	session    *browserSession // nil without a session plug
	// TokenIDs are the ids (jti) of the tokens that let the client in.
	TokenIDs []string
	// Expires is when what let the client in ends; zero is never.
	Expires time.Time
	// Subprotocol is what the client is told where the upstream chooses
	// none: it offered subprotocols to carry a token, and browsers give a
	// connection up that answers none of them.
	Subprotocol string

	mu       sync.Mutex
	request  []func(http.Header)
	response []func(http.Header)
	onEnd    []func()
	taken    bool
	ended    bool
}

type contextKey struct{}

// With returns a shallow copy of r that carries info.
func With(r *http.Request, info *Info) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), contextKey{}, info))
}

// From returns the Info that r carries. A request that never passed the
// front door has an empty one, which nobody ends.
func From(r *http.Request) *Info {
	if info, ok := r.Context().Value(contextKey{}).(*Info); ok {
		return info
	}
	return &Info{}
}

// EditRequest registers a change to the header that is sent up. Changes run
// in the order of their registration, after the front door's own header
// rules, at each dial; they must not keep the header.
func (i *Info) EditRequest(edit func(http.Header)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.request = append(i.request, edit)
}

// EditResponse registers a change to the header of the answer that goes to
// the client, whoever gives it: stent itself, a refusing upstream, a proxied
// page, the 101.
func (i *Info) EditResponse(edit func(http.Header)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.response = append(i.response, edit)
}

// ApplyRequest makes the registered changes to a header that is sent up.
func (i *Info) ApplyRequest(h http.Header) {
	i.mu.Lock()
	edits := i.request
	i.mu.Unlock()
	for _, edit := range edits {
		edit(h)
	}
}

// ApplyResponse makes the registered changes to the header of an answer.
func (i *Info) ApplyResponse(h http.Header) {
	i.mu.Lock()
	edits := i.response
	i.mu.Unlock()
	for _, edit := range edits {
		edit(h)
	}
}

// withholds reports whether a header field of the client's, by its canonical
// name, is not its own to send.
func (i *Info) withholds(name string) bool { return slices.Contains(i.Withheld, field.Fold(name)) }

// OnEnd registers what is to be done when the session ends, or the request
// where it became none. After the end it is done at once.
func (i *Info) OnEnd(do func()) {
	i.mu.Lock()
	if !i.ended {
		i.onEnd = append(i.onEnd, do)
		i.mu.Unlock()
		return
	}
	i.mu.Unlock()
	do()
}

// Take makes the caller the one who calls End. A session takes the Info of
// its request before the handler returns.
func (i *Info) Take() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.taken = true
}

// Taken says whether a session has taken the Info.
func (i *Info) Taken() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.taken
}

// End runs what OnEnd registered, last first. Only the first call does
// anything.
func (i *Info) End() {
	i.mu.Lock()
	hooks := i.onEnd
	i.onEnd, i.ended = nil, true
	i.mu.Unlock()
	for _, do := range slices.Backward(hooks) {
		do()
	}
}
