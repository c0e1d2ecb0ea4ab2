package plug

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
)

// tokenSource is one place where a request may carry its token.
type tokenSource struct {
	config.TokenSource
}

func newTokenSource(s string) (tokenSource, error) {
	source, err := config.ParseTokenSource(s)
	if err != nil {
		return tokenSource{}, err
	}
	if source.Kind == config.FromHeader {
		if strings.ContainsFunc(source.Name, func(c rune) bool { return !isTokenChar(c) }) {
			return tokenSource{}, fmt.Errorf("%q is not a header field name", source.Name)
		}
		source.Name = field.Fold(source.Name)
	}
	return tokenSource{source}, nil
}

// find returns all tokens at this place.
func (s tokenSource) find(r *http.Request) []string {
	var found []string
	switch s.Kind {
	case config.FromHeader:
		for name, lines := range r.Header {
			if !s.isField(name) {
				continue
			}
			for _, line := range lines {
				if t := s.inHeader(line); t != "" {
					found = append(found, t)
				}
			}
		}
	case config.FromQuery:
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			if name, value, _ := strings.Cut(pair, "="); s.names(name) && value != "" {
				if t, err := url.QueryUnescape(value); err == nil {
					value = t
				}
				found = append(found, value)
			}
		}
	case config.FromCookie:
		for _, c := range r.CookiesNamed(s.Name) {
			if c.Value != "" {
				found = append(found, c.Value)
			}
		}
	case config.FromProtocol:
		found, _, _ = splitProtocols(r.Header[protocolHeader])
	}
	return found
}

// field is the header field with the token; empty where none has it.
func (s tokenSource) field() string {
	switch s.Kind {
	case config.FromHeader:
		return s.Name
	case config.FromCookie:
		return "Cookie"
	case config.FromProtocol:
		return protocolHeader
	case config.FromQuery:
	}
	return ""
}

// isField says whether a field is that of the token, or one that the upstream
// may take for it.
func (s tokenSource) isField(name string) bool { return field.Fold(name) == s.Name }

// inHeader is the token in a line of the header. Authorization has it behind
// its scheme (RFC 6750 section 2.1), other headers may.
func (s tokenSource) inHeader(line string) string {
	line = strings.TrimSpace(line)
	if scheme, t, ok := strings.Cut(line, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	if s.Name == "Authorization" {
		return ""
	}
	return line
}

// names says whether the raw name of a query parameter is that of the token.
func (s tokenSource) names(raw string) bool {
	name, err := url.QueryUnescape(raw)
	return err == nil && name == s.Name
}

// told is the subprotocol to answer with where the upstream chooses none.
func (s tokenSource) told(r *http.Request) string {
	if s.Kind != config.FromProtocol {
		return ""
	}
	_, _, marker := splitProtocols(r.Header[protocolHeader])
	return marker
}

// remove takes the token out of a header that goes up.
func (s tokenSource) remove(h http.Header) {
	switch s.Kind {
	case config.FromHeader:
		for name, lines := range h {
			if !s.isField(name) {
				continue
			}
			var rest []string
			for _, line := range lines {
				if s.inHeader(line) == "" {
					rest = append(rest, line)
				}
			}
			replace(h, name, rest)
		}
	case config.FromCookie:
		var rest []string
		for _, line := range h["Cookie"] {
			if line = s.withoutCookie(line); line != "" {
				rest = append(rest, line)
			}
		}
		replace(h, "Cookie", rest)
	case config.FromProtocol:
		if tokens, rest, _ := splitProtocols(h[protocolHeader]); len(tokens) > 0 {
			replace(h, protocolHeader, joined(rest))
		}
	case config.FromQuery: // is no header: see withoutQuery
	}
}

// replace sets a header to lines, or deletes it.
func replace(h http.Header, name string, lines []string) {
	if len(lines) == 0 {
		delete(h, name)
		return
	}
	h[name] = lines
}

func joined(elements []string) []string {
	if len(elements) == 0 {
		return nil
	}
	return []string{strings.Join(elements, ", ")}
}

// withoutCookie leaves the other cookies of a line as they are.
func (s tokenSource) withoutCookie(line string) string {
	var rest []string
	for pair := range strings.SplitSeq(line, ";") {
		if name, _, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.TrimSpace(name) != s.Name {
			rest = append(rest, pair)
		}
	}
	return strings.TrimSpace(strings.Join(rest, ";"))
}

// withoutQuery returns the request without the token in its query; all else
// of the query stays as it is, byte for byte.
func (s tokenSource) withoutQuery(r *http.Request) *http.Request {
	if s.Kind != config.FromQuery {
		return r
	}
	var rest []string
	found := false
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, _, _ := strings.Cut(pair, "="); s.names(name) {
			found = true
			continue
		}
		rest = append(rest, pair)
	}
	if !found {
		return r
	}
	query := strings.Join(rest, "&")
	other := *r
	address := *r.URL
	address.RawQuery, address.ForceQuery = query, false
	other.URL = &address
	if target, _, ok := strings.Cut(r.RequestURI, "?"); ok {
		if query != "" {
			target += "?" + query
		}
		other.RequestURI = target
	}
	return &other
}

const protocolHeader = "Sec-Websocket-Protocol"

// The forms of a token among the subprotocols: browsers can set no other
// header of a handshake. Phoenix encodes it behind a prefix and offers its own
// subprotocol beside it; others name it and let it follow.
const (
	phoenixToken    = "base64url.bearer.phx."
	phoenixProtocol = "phoenix"
	namedToken      = "access_token"
)

// bearerToken begins what is a token for any server that reads it there:
// Phoenix's, and Kubernetes's.
const bearerToken = "base64url.bearer."

// IsTokenProtocol reports whether an offered subprotocol is a token and none.
func IsTokenProtocol(name string) bool { return strings.HasPrefix(name, bearerToken) }

// OfferAgain is the subprotocols that a further upstream of a session is
// offered, after the client has offered lines and chosen was agreed on: that
// one and no other, and the tokens beside it, which the upstream may ask for
// each time.
func OfferAgain(lines []string, chosen string) string {
	if len(lines) == 0 {
		return chosen
	}
	all := slices.Collect(field.Elements(lines))
	var again []string
	for i, element := range all {
		isToken := IsTokenProtocol(element) || i > 0 && all[i-1] == namedToken
		namesOne := element == namedToken && i+1 < len(all)
		if isToken || namesOne || element == chosen {
			again = append(again, element)
		}
	}
	if chosen != "" && !slices.Contains(again, chosen) {
		again = append([]string{chosen}, again...)
	}
	return strings.Join(again, ", ")
}

// splitProtocols takes the tokens out of a list of subprotocols. The marker is
// the offer that stands for the token, by which a client may be told that it
// was understood; it is empty where none was offered beside the token itself.
func splitProtocols(lines []string) (tokens, rest []string, marker string) {
	all := slices.Collect(field.Elements(lines))
	phoenix := false
	for i := 0; i < len(all); i++ {
		encoded, isPhoenix := strings.CutPrefix(all[i], phoenixToken)
		switch {
		case isPhoenix:
			phoenix = true
			t, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
			if err != nil {
				t = []byte(encoded) // which is no token
			}
			tokens = append(tokens, string(t))
		case all[i] == namedToken && i+1 < len(all):
			i++
			tokens = append(tokens, all[i])
			marker = namedToken
		default:
			rest = append(rest, all[i])
		}
	}
	if phoenix && marker == "" && slices.Contains(rest, phoenixProtocol) {
		marker = phoenixProtocol
	}
	return tokens, rest, marker
}
