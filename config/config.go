// Package config holds every type that can be written in stent.yaml: its
// defaults, its strict decoding with positions, its validation and its JSON
// Schema. It knows nothing of the network.
package config

// Config is one stent.yaml.
type Config struct {
	Listeners   []Listener          `yaml:"listeners"`
	Admin       Admin               `yaml:"admin"`
	Log         Log                 `yaml:"log"`
	Tracing     *Tracing            `yaml:"tracing" later:"true"`
	Limits      Limits              `yaml:"limits"`
	Shutdown    Shutdown            `yaml:"shutdown"`
	Supervisor  Supervisor          `yaml:"supervisor"`
	Endpoint    []Plug              `yaml:"endpoint"`
	Pipelines   map[string][]Plug   `yaml:"pipelines"`
	PipeThrough []string            `yaml:"pipe_through"`
	Scopes      []Scope             `yaml:"scopes"`
	Routes      []Route             `yaml:"routes"`
	Upstreams   map[string]Upstream `yaml:"upstreams"`

	// source is nil for a configuration built in code.
	source *source
}

// Listener is one address that clients connect to.
type Listener struct {
	// Address is host:port; an empty host listens on all interfaces.
	Address        string       `yaml:"address"`
	TLS            *ListenerTLS `yaml:"tls"`
	RedirectHTTPS  bool         `yaml:"redirect_https" later:"true"`
	ProxyProtocol  bool         `yaml:"proxy_protocol" later:"true"`
	TrustedProxies []CIDR       `yaml:"trusted_proxies"`

	// KeyPath is where the listener stands, such as listeners[0].
	KeyPath string `yaml:"-"`
}

// ListenerTLS makes a listener terminate TLS.
type ListenerTLS struct {
	Certificates []Certificate `yaml:"certificates"`
	ClientCA     string        `yaml:"client_ca" later:"true" path:"true"`
	MinVersion   string        `yaml:"min_version" enum:"1.2,1.3"`
	ACME         *ACME         `yaml:"acme" later:"true"`
}

// Certificate names a PEM certificate chain and its key.
type Certificate struct {
	Cert string `yaml:"cert" path:"true"`
	Key  string `yaml:"key" path:"true"`
}

// ACME obtains certificates from an ACME server (RFC 8555).
type ACME struct {
	Hosts     []string `yaml:"hosts"`
	Email     string   `yaml:"email"`
	Storage   string   `yaml:"storage" path:"true"`
	Directory string   `yaml:"directory"`
}

// Admin is the listener of the admin API.
type Admin struct {
	// Address is host:port, "unix:/path" or "off".
	Address       string `yaml:"address"`
	Token         Secret `yaml:"token"`
	MetricsPublic bool   `yaml:"metrics_public"`
}

// Log chooses what is logged and how.
type Log struct {
	Level  string `yaml:"level" enum:"debug,info,warn,error"`
	Format string `yaml:"format" enum:"auto,console,json"`
}

// Tracing exports spans over OTLP.
type Tracing struct {
	OTLP string `yaml:"otlp"`
}

// Limits bound the whole process; zero means no limit.
type Limits struct {
	Sessions            int      `yaml:"sessions"`
	SessionsPerIP       int      `yaml:"sessions_per_ip"`
	HandshakesPerSecond float64  `yaml:"handshakes_per_second"`
	Memory              Size     `yaml:"memory" later:"true"`
	HandshakeTimeout    Duration `yaml:"handshake_timeout"`
	HeaderSize          Size     `yaml:"header_size"`
}

// Shutdown says how the process ends: readiness fails, Delay passes, the
// listeners refuse, and closes are paced over Drain.
type Shutdown struct {
	Delay Duration `yaml:"delay"`
	Drain Duration `yaml:"drain"`
}

// Supervisor shapes the supervision tree.
type Supervisor struct {
	// Partitions is the number of session supervisors; 0 is one per core.
	Partitions int `yaml:"partitions"`
}

// Scope groups routes under a path, a host and pipelines. Scopes nest.
type Scope struct {
	Path        string   `yaml:"path"`
	Host        string   `yaml:"host"`
	PipeThrough []string `yaml:"pipe_through"`
	Routes      []Route  `yaml:"routes"`
	Scopes      []Scope  `yaml:"scopes"`

	// KeyPath is where the scope stands, such as scopes[0].scopes[1].
	KeyPath string `yaml:"-"`
}
