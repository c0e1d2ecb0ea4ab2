package config

// Upstream is a pool of targets.
type Upstream struct {
	Targets     []Target    `yaml:"targets"`
	Balance     Balance     `yaml:"balance"`
	Dial        Dial        `yaml:"dial"`
	MaxSessions int         `yaml:"max_sessions"`
	RedialRate  float64     `yaml:"redial_rate"`
	Rebalance   Rebalance   `yaml:"rebalance"`
	TLS         UpstreamTLS `yaml:"tls"`
	Health      *Health     `yaml:"health"`
	Outlier     *Outlier    `yaml:"outlier"`

	// KeyPath is where the pool stands, such as upstreams.chat.
	KeyPath string `yaml:"-"`
}

// Target is one backend, written as a URL or as {url, weight, name}.
type Target struct {
	// URL is ws, wss, http, https, unix:/path, dns+ws(s)://name:port or
	// srv+ws(s)://name.
	URL    string `yaml:"url"`
	Weight int    `yaml:"weight"`
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
	Timeout  Duration `yaml:"timeout"`
	Attempts int      `yaml:"attempts"`
}

// Rebalance moves sessions when targets' counts differ by more than the
// fraction Skew, Rate a second. A Skew of 0 turns it off.
type Rebalance struct {
	Skew float64 `yaml:"skew"`
	Rate float64 `yaml:"rate"`
}

// UpstreamTLS is used for wss and https targets.
type UpstreamTLS struct {
	CA                 string `yaml:"ca" path:"true"`
	ServerName         string `yaml:"server_name"`
	Cert               string `yaml:"cert" path:"true"`
	Key                string `yaml:"key" path:"true"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Health asks each target at an interval.
type Health struct {
	Path      string   `yaml:"path"`
	Interval  Duration `yaml:"interval"`
	Timeout   Duration `yaml:"timeout"`
	Healthy   int      `yaml:"healthy"`
	Unhealthy int      `yaml:"unhealthy"`
	// WebSocket makes the check a WebSocket handshake on Path.
	WebSocket bool `yaml:"websocket"`
}

// Outlier ejects a target for Eject after Failures dials failed in a row;
// at most MaxEjected of a pool is out at once.
type Outlier struct {
	Failures   int      `yaml:"failures"`
	Eject      Duration `yaml:"eject"`
	MaxEjected Percent  `yaml:"max_ejected"`
}
