package config

// Plug is one entry of a pipeline: a name and its configuration. A plug
// without options may be written as its bare name.
type Plug struct {
	Name string
	// Config is a pointer to the plug's type below.
	Config any

	// KeyPath is where the plug stands, such as pipelines.members[1]; the
	// keys of Config are at KeyPath.Name.
	KeyPath string `yaml:"-"`
}

// RequestIDPlug gives each request an id, or keeps a trusted proxy's.
type RequestIDPlug struct {
	// Header carries the id.
	Header string `yaml:"header"`
}

// LoggerPlug logs one line for each plain HTTP request.
type LoggerPlug struct {
	// Level is that of the lines.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
}

// AcceptsPlug refuses requests whose Accept header admits none of the
// formats, with 406. It is written as a list: html, json, text, or a media type.
type AcceptsPlug []string

// SecureHeadersPlug sets response headers that browsers honour.
type SecureHeadersPlug struct {
	// Set replaces or adds to the defaults; an empty value removes one.
	Set map[string]string `yaml:"set"`
}

// HeadersPlug changes the headers sent up and those sent back.
type HeadersPlug struct {
	// Request changes what is sent up.
	Request HeaderChange `yaml:"request"`
	// Response changes what is sent back.
	Response HeaderChange `yaml:"response"`
}

// HeaderChange sets and removes header fields.
type HeaderChange struct {
	// Set replaces all values of a header.
	Set map[string]string `yaml:"set"`
	// Remove names headers.
	Remove []string `yaml:"remove"`
}

// HeadPlug turns HEAD into GET, without the body.
type HeadPlug struct{}

// OriginPlug admits only requests with one of the origins, with 403
// otherwise. It is written as a list: "https://*.example.com", "same" (the
// request's own host), "none" (requests that carry no Origin), or "*".
type OriginPlug []string

// LimitPlug bounds what those with one key have open and send, together.
type LimitPlug struct {
	// Sessions is how many may be open at once, with 429 above it.
	Sessions int `yaml:"sessions"`
	// MessagesPerSecond bounds what their clients send. What is done above it
	// is on_limit of the route.
	MessagesPerSecond float64 `yaml:"messages_per_second"`
	// BytesPerSecond bounds it in bytes of payload.
	BytesPerSecond Size `yaml:"bytes_per_second"`
	// Burst is what may come at once, in seconds of the rate.
	Burst Duration `yaml:"burst"`
	// By is ip, id, route or header:NAME.
	By string `yaml:"by"`
}
