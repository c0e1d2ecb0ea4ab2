package config

// ForwardAuthPlug asks an HTTP service about each request. An answer of 2xx
// lets it in; any other goes to the client as it is. Where there is no answer
// nobody gets in.
type ForwardAuthPlug struct {
	// URL is the service's, such as http://127.0.0.1:9100/verify.
	URL string `yaml:"url" required:"true"`
	// Method is that of the question.
	Method string `yaml:"method"`
	// Headers are copied from the client's request to the question.
	Headers []string `yaml:"headers"`
	// Set are headers of the 2xx answer that are sent up.
	Set []string `yaml:"set"`
	// ID is the template of the socket id, such as "user:{X-User}", of the
	// answer's headers.
	ID string `yaml:"id"`
	// Timeout bounds the wait for the answer.
	Timeout Duration `yaml:"timeout"`
	// Cache keeps answers, for a question that is the same in every part.
	Cache ForwardAuthCache `yaml:"cache"`
}

// ForwardAuthCache says how long answers are kept; 0 is not at all.
type ForwardAuthCache struct {
	// Positive is how long a 2xx answer is kept.
	Positive Duration `yaml:"positive"`
	// Negative is how long a 4xx answer is kept.
	Negative Duration `yaml:"negative"`
}

// BasicAuthPlug asks for a user's name and password (RFC 7617), with 401 for
// others.
type BasicAuthPlug struct {
	// Users maps names to passwords: a bcrypt hash, as htpasswd -B writes it,
	// or the password itself.
	Users map[string]Secret `yaml:"users" required:"true"`
	// Realm is what browsers show when they ask.
	Realm string `yaml:"realm"`
	// ID is the template of the socket id, such as "user:{user}".
	ID string `yaml:"id"`
}

// IPPlug admits requests by the client's address, with 403 for others.
type IPPlug struct {
	// Allow are the ranges that are admitted; empty is all.
	Allow []CIDR `yaml:"allow"`
	// Deny are ranges that are not, whatever allow says.
	Deny []CIDR `yaml:"deny"`
}

// SessionPlug gives each browser a session of its own, in a signed cookie.
type SessionPlug struct {
	// Secret signs the cookie: at least 32 bytes.
	Secret Secret `yaml:"secret" required:"true"`
	// OldSecrets are still believed, so that secrets can be changed.
	OldSecrets []Secret `yaml:"old_secrets"`
	// Cookie is the cookie's name.
	Cookie string `yaml:"cookie"`
	// MaxAge is how long a session lasts without a request; 0 is until the
	// browser is closed, and 30 days at the most.
	MaxAge Duration `yaml:"max_age"`
	// SameSite says whether the cookie comes with requests of other sites.
	SameSite string `yaml:"same_site" enum:"lax,strict,none"`
	// ID is the template of the socket id, such as "visitor:{session}".
	ID string `yaml:"id"`
}

// CSRFPlug admits handshakes and requests that change something only with
// the token of their session, with 403 otherwise. A session plug has to come
// before it.
type CSRFPlug struct {
	// Query is the parameter that may carry the token.
	Query string `yaml:"query"`
	// Header is the header that may carry it.
	Header string `yaml:"header"`
	// Cookie is where pages read the token.
	Cookie string `yaml:"cookie"`
}

// RatePlug bounds how many requests a second those with one key make,
// handshakes or not, with 429 above it.
type RatePlug struct {
	// PerSecond is the rate.
	PerSecond float64 `yaml:"per_second" required:"true"`
	// Burst is how many may come at once; 0 is a second's worth.
	Burst int `yaml:"burst"`
	// By is ip, id, route or header:NAME.
	By string `yaml:"by"`
}

// RedirectPlug sends clients elsewhere. Who is there already passes.
type RedirectPlug struct {
	// To is the new URL or path, with {scheme}, {host}, {path}, {query} and
	// {uri} (path and query) of the request.
	To string `yaml:"to" required:"true"`
	// Status is 301, 302, 303, 307 or 308.
	Status int `yaml:"status"`
}

// StaticPlug answers with the files of a folder; what is no file there goes
// on.
type StaticPlug struct {
	// At is the path under which the folder is seen.
	At string `yaml:"at"`
	// From is the folder.
	From string `yaml:"from" path:"true" required:"true"`
}

// DefaultForwardAuthPlug asks with GET, shows the service the client's
// credentials and waits five seconds.
func DefaultForwardAuthPlug() ForwardAuthPlug {
	return ForwardAuthPlug{Method: "GET", Headers: []string{"Authorization", "Cookie"}, Timeout: seconds(5)}
}

// DefaultBasicAuthPlug names the realm after the program.
func DefaultBasicAuthPlug() BasicAuthPlug { return BasicAuthPlug{Realm: "stent"} }

// DefaultSessionPlug lasts a day from the last request on.
func DefaultSessionPlug() SessionPlug {
	return SessionPlug{Cookie: "_stent_session", MaxAge: seconds(24 * 3600), SameSite: "lax"}
}

// DefaultCSRFPlug has the names that Phoenix uses.
func DefaultCSRFPlug() CSRFPlug {
	return CSRFPlug{Query: "_csrf_token", Header: "X-CSRF-Token", Cookie: "_csrf_token"}
}

// DefaultRatePlug counts by the client's address.
func DefaultRatePlug() RatePlug { return RatePlug{By: "ip"} }

// DefaultRedirectPlug is temporary.
func DefaultRedirectPlug() RedirectPlug { return RedirectPlug{Status: 302} }

// DefaultStaticPlug shows the folder at the root.
func DefaultStaticPlug() StaticPlug { return StaticPlug{At: "/"} }
