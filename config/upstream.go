package config

// Upstream is a pool of targets.
type Upstream struct {
	// Targets are the backends.
	Targets []Target `yaml:"targets" required:"true"`
	// Balance chooses a target for a session.
	Balance Balance `yaml:"balance"`
	// Dial bounds the dialling of targets.
	Dial Dial `yaml:"dial"`
	// MaxSessions bounds the sessions of one target; 0 is no limit.
	MaxSessions int `yaml:"max_sessions"`
	// RedialRate is how many redials a second the pool makes, in bursts of a
	// quarter second's worth at most; 0 is no limit.
	RedialRate float64 `yaml:"redial_rate"`
	// Rebalance moves sessions between targets.
	Rebalance Rebalance `yaml:"rebalance"`
	// TLS is used for wss and https targets.
	TLS UpstreamTLS `yaml:"tls"`
	// Health asks each target at an interval; without it nothing is asked.
	Health *Health `yaml:"health"`
	// Outlier ejects targets that can't be dialled; without it none is.
	Outlier *Outlier `yaml:"outlier"`

	// KeyPath is where the pool stands, such as upstreams.chat.
	KeyPath string `yaml:"-"`
}

// Target is one backend, written as a URL or as {url, weight, name}.
type Target struct {
	// URL is ws, wss, http, https, unix:/path, dns+ws(s)://name:port or
	// srv+ws(s)://name.
	URL string `yaml:"url" required:"true"`
	// Weight is the target's share beside the others.
	Weight int `yaml:"weight"`
	// Name is unique in the pool; host:port where none is given.
	Name string `yaml:"name"`

	// KeyPath is where the target stands, such as upstreams.chat.targets[0].
	KeyPath string `yaml:"-"`
}

// BalanceKind names a balancing algorithm.
type BalanceKind string

// The values of BalanceKind.
const (
	BalanceLeastSessions BalanceKind = "least_sessions"
	BalanceRoundRobin    BalanceKind = "round_robin"
	BalanceRandom        BalanceKind = "random"
	BalanceP2C           BalanceKind = "p2c"
	BalanceHash          BalanceKind = "hash"
)

// Balance is written as a kind, or as {hash: key}.
type Balance struct {
	Kind BalanceKind
	// Key is the hash's key: id, ip, path, query:NAME, header:NAME or
	// cookie:NAME.
	Key string
}

// Dial bounds the dialling of one target, from connect to the 101, and says
// how many are tried before a client is refused.
type Dial struct {
	// Timeout is for one attempt, from connect to 101.
	Timeout Duration `yaml:"timeout"`
	// Attempts is how many targets are tried.
	Attempts int `yaml:"attempts"`
}

// Rebalance moves sessions when targets' counts differ by more than the
// fraction Skew, Rate a second. A Skew of 0 turns it off.
type Rebalance struct {
	// Skew is the fraction by which counts may differ; 0 is off.
	Skew float64 `yaml:"skew"`
	// Rate is how many sessions move a second.
	Rate float64 `yaml:"rate"`
}

// UpstreamTLS is used for wss and https targets.
type UpstreamTLS struct {
	// CA is a PEM file of authorities; empty is the system's.
	CA string `yaml:"ca" path:"true"`
	// ServerName is asked for and verified; empty is the URL's host.
	ServerName string `yaml:"server_name"`
	// Cert is the PEM file of a client certificate.
	Cert string `yaml:"cert" path:"true"`
	// Key is the PEM file of its key.
	Key string `yaml:"key" path:"true"`
	// InsecureSkipVerify accepts any certificate.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Health asks each target at an interval.
type Health struct {
	// Path is requested with GET; 2xx and 3xx are healthy.
	Path string `yaml:"path"`
	// Interval is the time between two requests.
	Interval Duration `yaml:"interval"`
	// Timeout is for one request.
	Timeout Duration `yaml:"timeout"`
	// Healthy is how many good answers in a row bring a target up.
	Healthy int `yaml:"healthy"`
	// Unhealthy is how many bad ones in a row take it down.
	Unhealthy int `yaml:"unhealthy"`
	// WebSocket makes the check a WebSocket handshake on Path.
	WebSocket bool `yaml:"websocket"`
}

// Outlier ejects a target for Eject after Failures dials failed in a row;
// at most MaxEjected of a pool is out at once.
type Outlier struct {
	// Failures is how many dials in a row must fail.
	Failures int `yaml:"failures"`
	// Eject is for how long the target is out.
	Eject Duration `yaml:"eject"`
	// MaxEjected is the part of a pool that may be out at once.
	MaxEjected Percent `yaml:"max_ejected"`
}
