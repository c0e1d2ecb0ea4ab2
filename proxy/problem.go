package proxy

import (
	"net/http"
	"strings"

	"github.com/stentproxy/stent/proxy/plug"
)

// Problem is an HTTP error of stent's own, answered as
// application/problem+json (RFC 9457).
type Problem = plug.Problem

// badRequest is the answer to a request, or a handshake, that breaks the
// rules of its protocol. The connection is closed: what follows on it may not
// be a request.
func badRequest(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Detail: detail, Close: true}
}

// notFound is the answer where no route has the path and host.
func notFound() *Problem {
	return &Problem{Status: http.StatusNotFound, Detail: "no route has this path and host"}
}

// methodNotAllowed is the answer where routes have the path and host, but not
// the method. RFC 9110 section 15.5.6 asks for Allow.
func methodNotAllowed(allow []string) *Problem {
	p := &Problem{Status: http.StatusMethodNotAllowed, Detail: "this resource does not have this method"}
	return p.Set("Allow", strings.Join(allow, ", "))
}

// upgradeRequired is the answer to a request that should have been a
// WebSocket handshake, or one of another version than 13 (RFC 6455 section
// 4.2.2, RFC 9110 section 15.5.22).
func upgradeRequired(detail string) *Problem {
	p := &Problem{Status: http.StatusUpgradeRequired, Detail: detail}
	return p.Set("Upgrade", "websocket").Set("Connection", "Upgrade").Set("Sec-WebSocket-Version", "13")
}

// requestTimeout is the answer to a client that pauses too long inside its
// request.
func requestTimeout() *Problem {
	return &Problem{Status: http.StatusRequestTimeout, Detail: "the request took too long to arrive", Close: true}
}

// internalError is the answer where stent itself failed. Its cause is for the
// log only.
func internalError() *Problem {
	return &Problem{Status: http.StatusInternalServerError, Detail: "the proxy failed to serve this request", Close: true}
}

// badGateway is the answer where every dial was refused, or answered with
// something that is no HTTP.
func badGateway() *Problem {
	return &Problem{Status: http.StatusBadGateway, Detail: "no upstream gave a usable answer"}
}

// unavailable is the answer where no target can be tried, or the process is at
// its limits.
func unavailable(detail string) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Detail: detail}
}

// gatewayTimeout is the answer where no upstream answered in time.
func gatewayTimeout() *Problem {
	return &Problem{Status: http.StatusGatewayTimeout, Detail: "no upstream answered in time"}
}
