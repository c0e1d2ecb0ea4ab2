package config

import (
	"reflect"
	"time"
)

// defaults gives each type that has any its defaults, wherever one begins:
// the document, an entry of a list or map, or what a pointer points to.
var defaults = map[reflect.Type]func() any{
	reflect.TypeFor[Listener]():        func() any { return DefaultListener() },
	reflect.TypeFor[ListenerTLS]():     func() any { return DefaultListenerTLS() },
	reflect.TypeFor[Route]():           func() any { return DefaultRoute() },
	reflect.TypeFor[Continuity]():      func() any { return DefaultContinuity() },
	reflect.TypeFor[Upstream]():        func() any { return DefaultUpstream() },
	reflect.TypeFor[Target]():          func() any { return DefaultTarget() },
	reflect.TypeFor[Health]():          func() any { return DefaultHealth() },
	reflect.TypeFor[Outlier]():         func() any { return DefaultOutlier() },
	reflect.TypeFor[RequestIDPlug]():   func() any { return DefaultRequestIDPlug() },
	reflect.TypeFor[LoggerPlug]():      func() any { return DefaultLoggerPlug() },
	reflect.TypeFor[LimitPlug]():       func() any { return DefaultLimitPlug() },
	reflect.TypeFor[RatePlug]():        func() any { return DefaultRatePlug() },
	reflect.TypeFor[ForwardAuthPlug](): func() any { return DefaultForwardAuthPlug() },
	reflect.TypeFor[BasicAuthPlug]():   func() any { return DefaultBasicAuthPlug() },
	reflect.TypeFor[SessionPlug]():     func() any { return DefaultSessionPlug() },
	reflect.TypeFor[CSRFPlug]():        func() any { return DefaultCSRFPlug() },
	reflect.TypeFor[RedirectPlug]():    func() any { return DefaultRedirectPlug() },
	reflect.TypeFor[StaticPlug]():      func() any { return DefaultStaticPlug() },
	reflect.TypeFor[JWTPlug]():         func() any { return DefaultJWTPlug() },
	reflect.TypeFor[JWKS]():            func() any { return DefaultJWKS() },
}

// DefaultConfig is what an empty file would mean: one listener, the admin
// API on loopback, no routes.
func DefaultConfig() Config {
	return Config{
		Listeners: []Listener{DefaultListener()},
		Admin:     DefaultAdmin(),
		Log:       DefaultLog(),
		Limits:    DefaultLimits(),
		Shutdown:  DefaultShutdown(),
		Endpoint:  DefaultEndpoint(),
	}
}

// DefaultListener listens on port 4000 of all interfaces.
func DefaultListener() Listener { return Listener{Address: ":4000"} }

// DefaultListenerTLS speaks TLS 1.2 and above.
func DefaultListenerTLS() ListenerTLS { return ListenerTLS{MinVersion: "1.2"} }

// DefaultAdmin serves the admin API on loopback.
func DefaultAdmin() Admin { return Admin{Address: "127.0.0.1:4001"} }

// DefaultLog logs at info, to a terminal as text, else as JSON.
func DefaultLog() Log { return Log{Level: "info", Format: "auto"} }

// DefaultLimits bounds a request, not the number of sessions.
func DefaultLimits() Limits {
	return Limits{HandshakeTimeout: seconds(10), HeaderSize: 16 << 10}
}

// DefaultShutdown closes sessions over 25 seconds, within the 30 that most
// orchestrators wait.
func DefaultShutdown() Shutdown { return Shutdown{Drain: seconds(25)} }

// DefaultEndpoint numbers and logs requests.
func DefaultEndpoint() []Plug {
	requestID, logger := DefaultRequestIDPlug(), DefaultLoggerPlug()
	return []Plug{{Name: "request_id", Config: &requestID}, {Name: "logger", Config: &logger}}
}

// DefaultRequestIDPlug uses X-Request-Id.
func DefaultRequestIDPlug() RequestIDPlug { return RequestIDPlug{Header: "X-Request-Id"} }

// DefaultLoggerPlug logs at info.
func DefaultLoggerPlug() LoggerPlug { return LoggerPlug{Level: "info"} }

// DefaultLimitPlug counts by the client's address; where a rate is set, a
// second's worth may come at once.
func DefaultLimitPlug() LimitPlug { return LimitPlug{By: "ip", Burst: seconds(1)} }

// DefaultJWTPlug takes the token of the Authorization header.
func DefaultJWTPlug() JWTPlug { return JWTPlug{From: []string{"header:Authorization"}} }

// DefaultJWKS fetches keys every quarter of an hour, and at most every ten
// seconds when tokens name unknown ones.
func DefaultJWKS() JWKS {
	return JWKS{Refresh: seconds(15 * 60), Cooldown: seconds(10), Timeout: seconds(5)}
}

// DefaultRoute relays what it is given: path and upstream have no default.
func DefaultRoute() Route {
	return Route{
		HostHeader: HostClient,
		Log:        "info",
		Protocol:   ProtocolRaw,
		Keepalive:  DefaultKeepalive(),
		Timeouts:   DefaultTimeouts(),
		Limits:     DefaultRouteLimits(),
	}
}

// DefaultKeepalive pings a leg that was silent for half a minute.
func DefaultKeepalive() Keepalive { return Keepalive{Interval: seconds(30), Timeout: seconds(10)} }

// DefaultTimeouts bounds a stalled write and the closing handshake.
func DefaultTimeouts() Timeouts { return Timeouts{Write: seconds(30), Close: seconds(5)} }

// DefaultRouteLimits sets no limits; where a rate is set, a second's worth
// may come at once, and a client above it is read more slowly.
func DefaultRouteLimits() RouteLimits {
	return RouteLimits{Burst: seconds(1), OnLimit: OnLimitSlow}
}

// DefaultContinuity is what "continuity: {}" means.
func DefaultContinuity() Continuity {
	return Continuity{
		Hold:        seconds(30),
		MaxRestarts: 10,
		MaxSeconds:  60,
		Backoff:     DefaultBackoff(),
		Whole:       64 << 10,
		Buffer:      64 << 10,
		OnFull:      OnFullWait,
		OnClose:     []int{1001, 1012, 1013},
		Replay:      DefaultReplay(),
	}
}

// DefaultBackoff waits from 50 ms to 5 s before a redial, halved or
// lengthened by half at random.
func DefaultBackoff() Backoff {
	return Backoff{Min: Duration(50 * time.Millisecond), Max: seconds(5), Jitter: 0.5}
}

// DefaultReplay repeats nothing.
func DefaultReplay() Replay { return Replay{Bytes: 64 << 10} }

// DefaultUpstream balances by session count; targets have no default.
func DefaultUpstream() Upstream {
	return Upstream{
		Balance:   Balance{Kind: BalanceLeastSessions},
		Dial:      DefaultDial(),
		Rebalance: DefaultRebalance(),
	}
}

// DefaultTarget has weight 1.
func DefaultTarget() Target { return Target{Weight: 1} }

// DefaultDial tries three targets, five seconds each.
func DefaultDial() Dial { return Dial{Timeout: seconds(5), Attempts: 3} }

// DefaultRebalance is off; where a skew is set, ten sessions move a second.
func DefaultRebalance() Rebalance { return Rebalance{Rate: 10} }

// DefaultHealth asks /healthz every five seconds.
func DefaultHealth() Health {
	return Health{Path: "/healthz", Interval: seconds(5), Timeout: seconds(2), Healthy: 2, Unhealthy: 3}
}

// DefaultOutlier ejects for 30 seconds after five failures in a row, and at
// most half of a pool.
func DefaultOutlier() Outlier { return Outlier{Failures: 5, Eject: seconds(30), MaxEjected: 0.5} }

func seconds(n int) Duration { return Duration(n) * Duration(time.Second) }
