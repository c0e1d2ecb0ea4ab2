package config

// UpstreamNone as a route's upstream makes its handlers the application.
const UpstreamNone = "none"

// Route says what happens to requests on one path.
type Route struct {
	// Path is exact ("/x") or a prefix ("/x/*": /x and all below it).
	Path        string      `yaml:"path"`
	Methods     []string    `yaml:"methods"`
	Host        string      `yaml:"host"`
	PipeThrough []string    `yaml:"pipe_through"`
	Upstream    string      `yaml:"upstream"`
	StripPrefix bool        `yaml:"strip_prefix"`
	HostHeader  HostHeader  `yaml:"host_header" enum:"client,target"`
	HTTP        bool        `yaml:"http"`
	Log         string      `yaml:"log" enum:"debug,info,warn,error,off"`
	Protocol    Protocol    `yaml:"protocol" enum:"raw,phoenix,graphql-transport-ws" later:"phoenix"`
	Compression Compression `yaml:"compression" enum:",passthrough,off,terminate"`
	Keepalive   Keepalive   `yaml:"keepalive"`
	Timeouts    Timeouts    `yaml:"timeouts"`
	Limits      RouteLimits `yaml:"limits"`
	Continuity  *Continuity `yaml:"continuity"`
	Topics      []Topic     `yaml:"topics" later:"true"`
	Longpoll    bool        `yaml:"longpoll" later:"true"`
	// FlightRecorder is how many frames are kept per session.
	FlightRecorder int       `yaml:"flight_recorder" later:"true"`
	Handlers       []Handler `yaml:"handlers"`

	// KeyPath is where the route stands, such as scopes[0].routes[1].
	KeyPath string `yaml:"-"`
}

// HostHeader chooses the Host that is sent up.
type HostHeader string

// The values of HostHeader.
const (
	HostClient HostHeader = "client"
	HostTarget HostHeader = "target"
)

// Protocol names the subprotocol that stent understands on a route.
type Protocol string

// The values of Protocol.
const (
	ProtocolRaw     Protocol = "raw"
	ProtocolPhoenix Protocol = "phoenix"
	ProtocolGraphQL Protocol = "graphql-transport-ws"
)

// Compression says who negotiates permessage-deflate (RFC 7692). The zero
// value is passthrough where nothing reads messages and off where something
// does.
type Compression string

// The values of Compression.
const (
	CompressionAuto        Compression = ""
	CompressionPassthrough Compression = "passthrough"
	CompressionOff         Compression = "off"
	CompressionTerminate   Compression = "terminate"
)

// Keepalive pings a leg after Interval without any frame from it and gives
// it up when nothing comes within Timeout. An Interval of zero turns it off.
type Keepalive struct {
	Interval Duration `yaml:"interval"`
	Timeout  Duration `yaml:"timeout"`
}

// Timeouts bound a session; zero means never, except Close.
type Timeouts struct {
	Idle     Duration `yaml:"idle"`     // without a message either way
	Write    Duration `yaml:"write"`    // a peer takes no data
	Lifetime Duration `yaml:"lifetime"` // of the session
	Close    Duration `yaml:"close"`    // for the closing handshake
}

// OnLimit says what happens to a client above its rate.
type OnLimit string

// The values of OnLimit.
const (
	OnLimitSlow  OnLimit = "slow"
	OnLimitDrop  OnLimit = "drop"
	OnLimitClose OnLimit = "close"
)

// RouteLimits bound one session's messages; zero means no limit.
type RouteLimits struct {
	// MessageSize bounds one message in both directions. Zero is no limit in
	// relay mode and DefaultMessageSize where messages are assembled.
	MessageSize       Size     `yaml:"message_size"`
	MessagesPerSecond float64  `yaml:"messages_per_second"`
	BytesPerSecond    Size     `yaml:"bytes_per_second"`
	Burst             Duration `yaml:"burst"`
	OnLimit           OnLimit  `yaml:"on_limit" enum:"slow,drop,close"`
}

// DefaultMessageSize bounds a message where messages are assembled and the
// route sets no message_size.
const DefaultMessageSize Size = 16 << 20

// Continuity keeps a client while its upstream is lost.
type Continuity struct {
	Hold        Duration `yaml:"hold"`
	MaxRestarts int      `yaml:"max_restarts"`
	// MaxSeconds is the window of MaxRestarts, in seconds.
	MaxSeconds  float64 `yaml:"max_seconds"`
	Backoff     Backoff `yaml:"backoff"`
	Whole       Size    `yaml:"whole"`
	Buffer      Size    `yaml:"buffer"`
	OnFull      OnFull  `yaml:"on_full" enum:"wait,close"`
	OnClose     []int   `yaml:"on_close"`
	Replay      Replay  `yaml:"replay"`
	AcceptEarly bool    `yaml:"accept_early"`
}

// Backoff is the pause before a redial: from Min, doubling, to Max, each
// spread by the fraction Jitter.
type Backoff struct {
	Min    Duration `yaml:"min"`
	Max    Duration `yaml:"max"`
	Jitter float64  `yaml:"jitter"`
}

// OnFull says what happens when a held client's buffer is full.
type OnFull string

// The values of OnFull.
const (
	OnFullWait  OnFull = "wait"
	OnFullClose OnFull = "close"
)

// Replay repeats client messages to a new upstream.
type Replay struct {
	First int  `yaml:"first"`
	Bytes Size `yaml:"bytes"`
	Joins bool `yaml:"joins" later:"true"`
}

// Topic is a rule over Phoenix topics.
type Topic struct {
	Match          string  `yaml:"match"`
	Allow          bool    `yaml:"allow"`
	Claim          string  `yaml:"claim"`
	JoinsPerSecond float64 `yaml:"joins_per_second"`
}

// Handler is one entry of a route's handlers: a name and its configuration.
type Handler struct {
	Name string
	// Config is *RulesHandler for "rules"; for a registered Go handler it is
	// the raw value, decoded into map[string]any, []any or a scalar; nil when
	// the entry is a bare name.
	Config any

	// KeyPath is where the handler stands, such as routes[0].handlers[1];
	// what is in Config is at KeyPath.Name.
	KeyPath string `yaml:"-"`
}

// RulesHandler is the configuration of the rules handler: the first rule
// whose condition holds decides.
type RulesHandler []Rule

// Rule is a condition and exactly one result.
type Rule struct {
	// When is an expr condition over the names in the README.
	When        string  `yaml:"when"`
	ReplyText   *string `yaml:"reply_text"`
	ReplyBinary *Base64 `yaml:"reply_binary"`
	ReplyExpr   string  `yaml:"reply_expr"`
	Stop        *Stop   `yaml:"stop"`
	Drop        bool    `yaml:"drop"`
	ForwardText *string `yaml:"forward_text"`
	ForwardExpr string  `yaml:"forward_expr"`
}

// Stop ends the session with a close code; 0 means 1000.
type Stop struct {
	Code   int    `yaml:"code"`
	Reason string `yaml:"reason"`
}
