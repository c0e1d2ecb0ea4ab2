// Package config holds every type that can be written in stent.yaml: its
// defaults, its strict decoding with positions, its validation and its JSON
// Schema. It knows nothing of the network.
package config

// Config is one stent.yaml.
type Config struct {
	// Listeners are the addresses that clients connect to.
	Listeners []Listener `yaml:"listeners"`
	// Admin is the admin API, on a listener of its own.
	Admin Admin `yaml:"admin"`
	// Log says what is logged and how.
	Log Log `yaml:"log"`
	// Tracing exports spans; without it there are none.
	Tracing *Tracing `yaml:"tracing" later:"true"`
	// Limits bound the whole process.
	Limits Limits `yaml:"limits"`
	// Shutdown says how the process ends.
	Shutdown Shutdown `yaml:"shutdown"`
	// Supervisor shapes the supervision tree.
	Supervisor Supervisor `yaml:"supervisor"`
	// Endpoint lists the plugs that run for every request, before routing.
	Endpoint []Plug `yaml:"endpoint"`
	// Pipelines are named stacks of plugs.
	Pipelines map[string][]Plug `yaml:"pipelines"`
	// PipeThrough names the pipelines of all routes.
	PipeThrough []string `yaml:"pipe_through"`
	// Scopes group routes; theirs are tried before the file's own.
	Scopes []Scope `yaml:"scopes"`
	// Routes are those outside any scope.
	Routes []Route `yaml:"routes"`
	// Upstreams are the pools of targets, by name.
	Upstreams map[string]Upstream `yaml:"upstreams"`

	// source is nil for a configuration built in code.
	source *source
}

// Listener is one address that clients connect to.
type Listener struct {
	// Address is host:port; an empty host listens on all interfaces.
	Address string `yaml:"address" required:"true"`
	// TLS makes the listener terminate TLS.
	TLS *ListenerTLS `yaml:"tls"`
	// RedirectHTTPS answers plain HTTP with a redirect to https, also where it
	// is spoken to a listener with TLS.
	RedirectHTTPS bool `yaml:"redirect_https"`
	// ProxyProtocol expects a PROXY header, version 1 or 2, on each
	// connection from trusted proxies. Others may not send one.
	ProxyProtocol bool `yaml:"proxy_protocol"`
	// TrustedProxies are the address ranges whose X-Forwarded-* and PROXY
	// headers are believed.
	TrustedProxies []CIDR `yaml:"trusted_proxies"`

	// KeyPath is where the listener stands, such as listeners[0].
	KeyPath string `yaml:"-"`
}

// ListenerTLS makes a listener terminate TLS.
type ListenerTLS struct {
	// Certificates are chosen by the server name that the client asks for;
	// the first one answers for all others. They are read again when the
	// files change.
	Certificates []Certificate `yaml:"certificates"`
	// ClientCA is a PEM file of authorities: clients need a certificate that
	// one of them has signed. It is read again when it changes.
	ClientCA string `yaml:"client_ca" path:"true"`
	// MinVersion is the lowest version of TLS that is spoken.
	MinVersion string `yaml:"min_version" enum:"1.2,1.3"`
	// ACME obtains certificates for names that Certificates don't cover.
	ACME *ACME `yaml:"acme"`
}

// Certificate names a PEM certificate chain and its key.
type Certificate struct {
	// Cert is the file of the chain, from the folder of the configuration.
	Cert string `yaml:"cert" path:"true" required:"true"`
	// Key is the file of the private key.
	Key string `yaml:"key" path:"true" required:"true"`
}

// ACME obtains certificates from an ACME server (RFC 8555).
type ACME struct {
	// Hosts are the names to obtain certificates for.
	Hosts []string `yaml:"hosts" required:"true"`
	// Email is where the authority writes to.
	Email string `yaml:"email"`
	// Storage is the folder for keys and certificates. Several stents may
	// share it.
	Storage string `yaml:"storage" path:"true" required:"true"`
	// Directory is the authority's URL; empty is Let's Encrypt.
	Directory string `yaml:"directory"`
}

// Admin is the listener of the admin API.
type Admin struct {
	// Address is host:port, "unix:/path" or "off".
	Address string `yaml:"address"`
	// Token is asked for as a bearer token; it is required where the address
	// is neither loopback nor a unix socket.
	Token Secret `yaml:"token"`
	// MetricsPublic serves /metrics without the token.
	MetricsPublic bool `yaml:"metrics_public"`
}

// Log chooses what is logged and how.
type Log struct {
	// Level is the lowest level that is logged.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
	// Format is auto for text on a terminal and JSON otherwise.
	Format string `yaml:"format" enum:"auto,console,json"`
}

// Tracing exports spans over OTLP.
type Tracing struct {
	// OTLP is the collector's URL.
	OTLP string `yaml:"otlp"`
}

// Limits bound the whole process; zero means no limit.
type Limits struct {
	// Sessions is how many may be open at once.
	Sessions int `yaml:"sessions"`
	// SessionsPerIP is how many one client address may have open; an IPv6
	// address counts as its /64.
	SessionsPerIP int `yaml:"sessions_per_ip"`
	// HandshakesPerSecond is the rate of new sessions.
	HandshakesPerSecond float64 `yaml:"handshakes_per_second"`
	// Memory is a soft bound: above it new sessions get 503, and those that
	// hold the most data are closed with 1013.
	Memory Size `yaml:"memory"`
	// HandshakeTimeout is for TLS and for reading the request.
	HandshakeTimeout Duration `yaml:"handshake_timeout"`
	// HeaderSize bounds a request's header.
	HeaderSize Size `yaml:"header_size"`
}

// Shutdown says how the process ends: readiness fails, Delay passes, the
// listeners refuse, and closes are paced over Drain.
type Shutdown struct {
	// Delay gives load balancers time to see that readiness fails.
	Delay Duration `yaml:"delay"`
	// Drain is the time over which sessions are closed.
	Drain Duration `yaml:"drain"`
}

// Supervisor shapes the supervision tree.
type Supervisor struct {
	// Partitions is the number of session supervisors; 0 is one per core.
	Partitions int `yaml:"partitions"`
}

// Scope groups routes under a path, a host and pipelines. Scopes nest.
type Scope struct {
	// Path is put in front of the paths of all in the scope.
	Path string `yaml:"path"`
	// Host is a name or *.name; empty matches any.
	Host string `yaml:"host"`
	// PipeThrough names pipelines, added to those from outside.
	PipeThrough []string `yaml:"pipe_through"`
	// Routes are tried after those of the inner scopes.
	Routes []Route `yaml:"routes"`
	// Scopes are inner scopes.
	Scopes []Scope `yaml:"scopes"`

	// KeyPath is where the scope stands, such as scopes[0].scopes[1].
	KeyPath string `yaml:"-"`
}
