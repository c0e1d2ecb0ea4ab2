package config

import (
	"maps"
	"mime"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// plugs checks a stack of plugs.
func (c *checker) plugs(stack []Plug) {
	for _, p := range stack {
		at := join(p.KeyPath, p.Name)
		switch options := p.Config.(type) {
		case *RequestIDPlug:
			c.headerName(options.Header, join(at, "header"))
		case *AcceptsPlug:
			c.accepts(*options, at)
		case *SecureHeadersPlug:
			c.headers(options.Set, join(at, "set"))
		case *HeadersPlug:
			c.headerChange(options.Request, join(at, "request"))
			c.headerChange(options.Response, join(at, "response"))
		case *OriginPlug:
			c.origins(*options, at)
		case *JWTPlug:
			c.jwt(options, at)
		case *LimitPlug:
			c.limit(*options, at)
		case *RatePlug:
			c.rate(*options, at)
		case *ForwardAuthPlug:
			c.forwardAuth(*options, at)
		case *BasicAuthPlug:
			c.basicAuth(*options, at)
		case *IPPlug:
			c.ip(*options, at)
		case *SessionPlug:
			c.session(*options, at)
		case *CSRFPlug:
			c.csrf(*options, at)
		case *RedirectPlug:
			c.redirect(*options, at)
		case *StaticPlug:
			c.static(*options, at)
		}
	}
}

func (c *checker) accepts(formats AcceptsPlug, path string) {
	if len(formats) == 0 {
		c.fail(path, "no formats, such as [html, json]")
	}
	for i, format := range formats {
		if slices.Contains([]string{"html", "json", "text"}, format) {
			continue
		}
		if media, params, err := mime.ParseMediaType(format); err != nil || !strings.Contains(media, "/") || strings.Contains(media, "*") || len(params) > 0 {
			c.fail(item(path, i), "%q is no format; want html, json, text, or a media type such as image/png", format)
		}
	}
}

func (c *checker) origins(origins OriginPlug, path string) {
	if len(origins) == 0 {
		c.fail(path, `no origins, such as ["https://*.example.com", same]`)
	}
	for i, origin := range origins {
		if !validOrigin(origin) {
			c.fail(item(path, i), `%q is no origin; want scheme://host or scheme://host:port without a path, "same", "none" or "*"`, origin)
		}
	}
}

// validOrigin checks an origin as browsers write it (RFC 6454, section 6.2),
// with a star for the first labels of the host.
func validOrigin(origin string) bool {
	switch origin {
	case "*", "same", "none":
		return true
	}
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok {
		return false
	}
	u, err := url.Parse(scheme + "://" + strings.TrimPrefix(host, "*."))
	if err != nil || u.Host == "" || u.String() != scheme+"://"+u.Host || strings.HasSuffix(u.Host, ":") {
		return false
	}
	if port := u.Port(); port != "" {
		if _, _, err := splitAddress(net.JoinHostPort(u.Hostname(), port)); err != nil {
			return false
		}
	}
	return validHost(u.Hostname())
}

func (c *checker) limit(l LimitPlug, path string) {
	rated := l.MessagesPerSecond != 0 || l.BytesPerSecond != 0
	if l.Sessions == 0 && !rated {
		c.fail(path, "limits nothing; want sessions, messages_per_second or bytes_per_second")
	}
	if rated {
		c.positive(float64(l.Burst), join(path, "burst"))
	}
	c.limitKey(l.By, join(path, "by"))
}

// limitKey checks by what is counted.
func (c *checker) limitKey(by, path string) {
	if name, ok := strings.CutPrefix(by, "header:"); ok {
		c.headerName(name, path)
		return
	}
	known := []string{"ip", "id", "route"}
	if !slices.Contains(known, by) {
		c.fail(path, "%q is no key; want ip, id, route or header:NAME", by).suggestion = suggest(by, known)
	}
}

func (c *checker) headerName(name, path string) {
	if !httpguts.ValidHeaderFieldName(name) {
		c.fail(path, "%q is no header name", name)
	}
}

func (c *checker) headerChange(h HeaderChange, path string) {
	c.headers(h.Set, join(path, "set"))
	for i, name := range h.Remove {
		at := item(join(path, "remove"), i)
		c.headerName(name, at)
		c.ownHeader(name, at)
	}
}

// headers checks fields to be set.
func (c *checker) headers(set map[string]string, path string) {
	seen := make(map[string]string, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		at := join(path, name)
		c.headerName(name, at)
		c.ownHeader(name, at)
		if !httpguts.ValidHeaderFieldValue(set[name]) {
			c.fail(at, "the value holds a line end or another control character")
		}
		fold := strings.ToLower(name)
		if earlier, ok := seen[fold]; ok {
			c.fail(at, "is the same header as %s", earlier)
		}
		seen[fold] = name
	}
}

// ownHeaders frame a request or carry the handshake: stent writes them.
var ownHeaders = []string{"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

func (c *checker) ownHeader(name, path string) {
	name = strings.ToLower(name)
	own := slices.Contains(ownHeaders, name) || strings.HasPrefix(name, "sec-websocket-") || strings.HasPrefix(name, "stent-")
	switch {
	case name == "host":
		c.fail(path, "Host is chosen by the route's host_header")
	case own:
		c.fail(path, "stent writes this header itself")
	}
}
