package config

// UpstreamNone as a route's upstream makes its handlers the application.
const UpstreamNone = "none"

// Route says what happens to requests on one path.
type Route struct {
	// Path is exact ("/x") or a prefix ("/x/*": /x and all below it).
	Path string `yaml:"path" required:"true"`
	// Methods are those that the route takes; none are all.
	Methods []string `yaml:"methods"`
	// Host is a name or *.name; empty matches any.
	Host string `yaml:"host"`
	// PipeThrough names pipelines, added to those of the scopes.
	PipeThrough []string `yaml:"pipe_through"`
	// Upstream is the name of a pool, or none: the handlers are the
	// application.
	Upstream string `yaml:"upstream" required:"true"`
	// StripPrefix removes the joined prefix from the path that is sent up.
	StripPrefix bool `yaml:"strip_prefix"`
	// HostHeader chooses the Host that is sent up.
	HostHeader HostHeader `yaml:"host_header" enum:"client,target"`
	// HTTP proxies plain HTTP requests too.
	HTTP bool `yaml:"http"`
	// Log is the level of the lines at the opening and closing of a session.
	Log string `yaml:"log" enum:"debug,info,warn,error,off"`
	// Protocol is the subprotocol that stent understands on the route.
	Protocol Protocol `yaml:"protocol" enum:"raw,phoenix,graphql-transport-ws"`
	// Compression is passthrough by default where nothing reads messages,
	// and off where something does.
	Compression Compression `yaml:"compression" enum:",passthrough,off,terminate"`
	// Keepalive finds peers that have vanished.
	Keepalive Keepalive `yaml:"keepalive"`
	// Timeouts bound a session.
	Timeouts Timeouts `yaml:"timeouts"`
	// Limits bound one session's messages.
	Limits RouteLimits `yaml:"limits"`
	// Continuity keeps clients when their upstream is lost; without it they
	// are closed.
	Continuity *Continuity `yaml:"continuity"`
	// Topics say who may join which Phoenix topics; the first that matches
	// decides. Without any, all may; what none matches, nobody may.
	Topics []Topic `yaml:"topics"`
	// Longpoll bridges Phoenix long-poll clients to the WebSocket upstream:
	// what is asked for below path at /longpoll goes up as /websocket.
	Longpoll bool `yaml:"longpoll"`
	// FlightRecorder is how many frames are kept per session.
	FlightRecorder int `yaml:"flight_recorder" later:"true"`
	// Handlers see messages in this order.
	Handlers []Handler `yaml:"handlers"`

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
	// Interval is the silence after which a leg is pinged; 0 is off.
	Interval Duration `yaml:"interval"`
	// Timeout is how long any frame may take to come then.
	Timeout Duration `yaml:"timeout"`
}

// Timeouts bound a session; zero means never, except Close.
type Timeouts struct {
	// Idle is the time without a message either way.
	Idle Duration `yaml:"idle"`
	// Write is the time in which a peer takes no data.
	Write Duration `yaml:"write"`
	// Lifetime is that of the session.
	Lifetime Duration `yaml:"lifetime"`
	// Close is the time for the closing handshake.
	Close Duration `yaml:"close"`
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
	MessageSize Size `yaml:"message_size"`
	// MessagesPerSecond is the rate from client to upstream.
	MessagesPerSecond float64 `yaml:"messages_per_second"`
	// BytesPerSecond is the rate from client to upstream.
	BytesPerSecond Size `yaml:"bytes_per_second"`
	// Burst is how much of a rate may come at once, in time.
	Burst Duration `yaml:"burst"`
	// OnLimit is slow (stop reading), drop, or close (1008).
	OnLimit OnLimit `yaml:"on_limit" enum:"slow,drop,close"`
}

// DefaultMessageSize bounds a message where messages are assembled and the
// route sets no message_size.
const DefaultMessageSize Size = 16 << 20

// Continuity keeps a client while its upstream is lost.
type Continuity struct {
	// Hold is how long a client waits for a new upstream, from each loss
	// anew.
	Hold Duration `yaml:"hold"`
	// MaxRestarts is how many losses of an established upstream are borne
	// within MaxSeconds; one more gives up.
	MaxRestarts int `yaml:"max_restarts"`
	// MaxSeconds is the window of MaxRestarts, in seconds.
	MaxSeconds float64 `yaml:"max_seconds"`
	// Backoff is the pause before a redial.
	Backoff Backoff `yaml:"backoff"`
	// Whole is the size up to which messages are passed on only when
	// complete; larger ones are cut through.
	Whole Size `yaml:"whole"`
	// Buffer is how much client data is kept while held.
	Buffer Size `yaml:"buffer"`
	// OnFull is wait (stop reading the client) or close (1013).
	OnFull OnFull `yaml:"on_full" enum:"wait,close"`
	// OnClose lists the close codes of an upstream that mean "come back".
	OnClose []int `yaml:"on_close"`
	// Replay repeats client messages to a new upstream.
	Replay Replay `yaml:"replay"`
	// AcceptEarly answers the client before any upstream is there.
	AcceptEarly bool `yaml:"accept_early"`
}

// Backoff is the pause before a redial: from Min, doubling, to Max, each
// spread by the fraction Jitter.
type Backoff struct {
	// Min is the first pause.
	Min Duration `yaml:"min"`
	// Max is the longest one.
	Max Duration `yaml:"max"`
	// Jitter is the fraction by which a pause is spread.
	Jitter float64 `yaml:"jitter"`
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
	// First is how many of a client's first messages are repeated.
	First int `yaml:"first"`
	// Bytes bounds what is kept to be repeated.
	Bytes Size `yaml:"bytes"`
	// Joins repeats the joins of Phoenix topics, as far as Bytes goes.
	// Otherwise clients are told to join again.
	Joins bool `yaml:"joins"`
}

// Topic is a rule over Phoenix topics.
type Topic struct {
	// Match is a topic, or the start of topics and a star.
	Match string `yaml:"match" required:"true"`
	// Allow lets clients join.
	Allow bool `yaml:"allow"`
	// Claim is what the client's token must say: a claim that is there and
	// not false, or claim=value, where the claim is or lists the value. In
	// that {*} is what the star of Match stands for.
	Claim string `yaml:"claim"`
	// JoinsPerSecond bounds a client's joins, a second's worth of which may
	// come at once.
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
	When string `yaml:"when" required:"true"`
	// ReplyText answers the sender with this text.
	ReplyText *string `yaml:"reply_text"`
	// ReplyBinary answers the sender with these bytes, in base64.
	ReplyBinary *Base64 `yaml:"reply_binary"`
	// ReplyExpr answers the sender with the value of an expr expression.
	ReplyExpr string `yaml:"reply_expr"`
	// Stop ends the session.
	Stop *Stop `yaml:"stop"`
	// Drop keeps the message from going further.
	Drop bool `yaml:"drop"`
	// ForwardText passes this text on in the message's place.
	ForwardText *string `yaml:"forward_text"`
	// ForwardExpr passes on the value of an expr expression.
	ForwardExpr string `yaml:"forward_expr"`
}

// Stop ends the session with a close code; 0 means 1000.
type Stop struct {
	// Code is 0, 1000 to 1003, 1007 to 1013, or 3000 to 4999.
	Code int `yaml:"code"`
	// Reason is at most 123 bytes long.
	Reason string `yaml:"reason"`
}
