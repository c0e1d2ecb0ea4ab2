package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/stentproxy/stent/proxy/field"
	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/plug"
)

// deflateName is the extension of RFC 7692.
const deflateName = "permessage-deflate"

// noTakeover is permessage-deflate with every message compressed by itself:
// the only form that survives a change of the upstream, whose new one lacks
// the old one's window, and that costs no memory between two messages.
const noTakeover = deflateName + "; server_no_context_takeover; client_no_context_takeover"

// extensionRule says who negotiates extensions on a route.
type extensionRule uint8

const (
	extPassthrough extensionRule = iota // end to end, as offered and answered
	extContinuity                       // end to end, in a form that a new upstream, or one that misses messages, can go on with
	extOff                              // none
	extTerminate                        // permessage-deflate with each leg
)

// extension is one element of Sec-WebSocket-Extensions (RFC 6455 section
// 9.1).
type extension struct {
	name   string
	params []string // "key" or "key=value", unquoted
}

func (e extension) param(key string) (value string, ok bool) {
	for _, p := range e.params {
		k, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(k, key) {
			return v, true
		}
	}
	return "", false
}

// parseExtensions reads every line of a Sec-WebSocket-Extensions header.
func parseExtensions(lines []string) []extension {
	var all []extension
	for element := range field.Elements(lines) {
		name, rest, _ := strings.Cut(element, ";")
		e := extension{name: strings.ToLower(strings.TrimSpace(name))}
		if e.name == "" {
			continue
		}
		for param := range strings.SplitSeq(rest, ";") {
			key, value, has := strings.Cut(param, "=")
			key = strings.TrimSpace(key)
			if key == "" {
				continue
			}
			if has {
				key += "=" + strings.Trim(strings.TrimSpace(value), `"`)
			}
			e.params = append(e.params, key)
		}
		all = append(all, e)
	}
	return all
}

// reserved returns the reserved bits that the answered extensions use. What
// others than permessage-deflate claim is not known here, so all may be used.
func reserved(answer []extension) uint8 {
	var rsv uint8
	for _, e := range answer {
		if e.name == deflateName {
			rsv |= frame.Rsv1
		} else {
			rsv |= frame.Rsv1 | frame.Rsv2 | frame.Rsv3
		}
	}
	return rsv
}

// offerUp returns what of the client's offer goes up.
func (rule extensionRule) offerUp(client []string) []string {
	switch rule {
	case extPassthrough:
		return client
	case extContinuity:
		for _, e := range parseExtensions(client) {
			if e.name != deflateName {
				continue
			}
			offer := noTakeover
			if bits, ok := e.param("server_max_window_bits"); ok && bits != "" {
				offer += "; server_max_window_bits=" + bits
			}
			return []string{offer}
		}
	case extTerminate:
		return []string{noTakeover}
	case extOff:
	}
	return nil
}

// agreement is what a session's ends have agreed on, and what every further
// upstream has to agree to.
type agreement struct {
	Subprotocol string
	// Offer is the subprotocols that every further upstream is offered: the
	// one of before, with the tokens that the client had put beside it.
	Offer string
	// Extensions is Sec-WebSocket-Extensions as the client was told.
	Extensions string
	// Rsv are the reserved bits that may be on the wire end to end.
	Rsv uint8
	// Deflate says that permessage-deflate is terminated with the client.
	Deflate bool
}

// agree makes the agreement of a client's offer and an upstream's answer.
func (rule extensionRule) agree(offer, answer http.Header) agreement {
	a := agreement{Subprotocol: answer.Get("Sec-Websocket-Protocol")}
	a.Offer = plug.OfferAgain(offer["Sec-Websocket-Protocol"], a.Subprotocol)
	ext := parseExtensions(answer["Sec-Websocket-Extensions"])
	switch rule {
	case extPassthrough:
		a.Extensions = strings.Join(answer["Sec-Websocket-Extensions"], ", ")
		a.Rsv = reserved(ext)
	case extContinuity:
		if len(ext) > 0 {
			a.Extensions = noTakeover
			if bits, ok := ext[0].param("server_max_window_bits"); ok {
				a.Extensions += "; server_max_window_bits=" + bits
			}
			a.Rsv = frame.Rsv1
		}
	case extTerminate:
		if acceptsDeflate(offer["Sec-Websocket-Extensions"]) {
			a.Extensions, a.Deflate = noTakeover, true
		}
	case extOff:
	}
	return a
}

// acceptsDeflate reports whether one of a client's offers of
// permessage-deflate can be met: our compressor uses the full window.
func acceptsDeflate(offer []string) bool {
	for _, e := range parseExtensions(offer) {
		if e.name != deflateName || !validOffer(e) {
			continue
		}
		if bits, ok := e.param("server_max_window_bits"); !ok || bits == fullWindow {
			return true
		}
	}
	return false
}

// validOffer reports whether an offer of permessage-deflate has defined
// parameters only, with valid values and each once; a server declines others
// (RFC 7692 section 7.1).
func validOffer(e extension) bool {
	seen := make(map[string]bool, len(e.params))
	for _, p := range e.params {
		key, value, has := strings.Cut(p, "=")
		key = strings.ToLower(key)
		if seen[key] {
			return false
		}
		seen[key] = true
		switch key {
		case "server_no_context_takeover", "client_no_context_takeover":
			if has {
				return false
			}
		case "server_max_window_bits":
			if !validWindow(value) {
				return false
			}
		case "client_max_window_bits":
			if has && !validWindow(value) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// validWindow reports whether a window is 8 to 15 bits, without leading
// zeros (RFC 7692 section 7.1.2.1).
func validWindow(bits string) bool {
	n, err := strconv.Atoi(bits)
	return err == nil && n >= 8 && n <= 15 && bits[0] != '0' && bits[0] != '+'
}

// checkAnswer refuses an upstream's answer that this session can't go on
// with. First is the one that makes the agreement.
func (rule extensionRule) checkAnswer(answer http.Header, first bool, a *agreement) error {
	ext := parseExtensions(answer["Sec-Websocket-Extensions"])
	if rule != extPassthrough {
		if err := rule.checkDeflate(ext); err != nil {
			return err
		}
	}
	if first {
		return nil
	}
	if got := answer.Get("Sec-Websocket-Protocol"); got != a.Subprotocol {
		return fmt.Errorf("subprotocol %q where the client has %q", got, a.Subprotocol)
	}
	if rule == extContinuity && (len(ext) > 0) != (a.Rsv != 0) {
		return fmt.Errorf("extensions %q where the client has %q", answer.Get("Sec-Websocket-Extensions"), a.Extensions)
	}
	if rule == extContinuity && len(ext) > 0 {
		told := parseExtensions([]string{a.Extensions})
		if windowBits(ext[0]) > windowBits(told[0]) {
			return fmt.Errorf("extensions %q where the client has %q", answer.Get("Sec-Websocket-Extensions"), a.Extensions)
		}
	}
	return nil
}

// checkDeflate refuses what was not offered: anything but
// permessage-deflate without context takeover.
func (rule extensionRule) checkDeflate(answer []extension) error {
	if len(answer) == 0 {
		return nil
	}
	if len(answer) > 1 || answer[0].name != deflateName {
		return fmt.Errorf("extension %q was not offered", answer[len(answer)-1].name)
	}
	if _, ok := answer[0].param("server_no_context_takeover"); !ok {
		return fmt.Errorf("permessage-deflate with context takeover, which was not offered")
	}
	// Some servers answer client_max_window_bits unasked. Where we are that
	// client we can do without compressing; a client that was promised the
	// full window can't.
	if bits, ok := answer[0].param("client_max_window_bits"); ok && bits != fullWindow && rule != extTerminate {
		return fmt.Errorf("client_max_window_bits was not offered")
	}
	return nil
}

// fullWindow is the window of our compressor, in bits.
const fullWindow = "15"

// terminated says what an upstream's answer lets the two ends of its leg
// compress.
func terminated(answer http.Header) (inflate, deflate bool) {
	ext := parseExtensions(answer["Sec-Websocket-Extensions"])
	if len(ext) == 0 {
		return false, false
	}
	bits, bounded := ext[0].param("client_max_window_bits")
	return true, !bounded || bits == fullWindow
}

// windowBits is the window that a server compresses with.
func windowBits(e extension) int {
	if bits, ok := e.param("server_max_window_bits"); ok {
		if n, err := strconv.Atoi(bits); err == nil {
			return n
		}
	}
	return 15
}
