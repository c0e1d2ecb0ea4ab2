package proxy

import (
	"net/http"
	"testing"
)

func TestAcceptsDeflate(t *testing.T) {
	for _, tc := range []struct {
		offer string
		want  bool
	}{
		{"", false},
		{"permessage-deflate", true},
		{"Permessage-Deflate", true},
		{"permessage-deflate; client_max_window_bits", true},
		{"permessage-deflate; client_max_window_bits=9", true},
		{`permessage-deflate; server_max_window_bits="15"`, true},
		{"permessage-deflate; server_max_window_bits=14", false}, // our window is larger
		{"permessage-deflate; server_max_window_bits=14, permessage-deflate", true},
		{"permessage-deflate; server_max_window_bits", false},
		{"permessage-deflate; client_max_window_bits=99", false},
		{"permessage-deflate; client_max_window_bits=08", false},
		{"permessage-deflate; server_no_context_takeover=1", false},
		{"permessage-deflate; server_no_context_takeover; server_no_context_takeover", false},
		{"permessage-deflate; unknown_parameter", false},
		{"x-webkit-deflate-frame", false},
	} {
		if got := acceptsDeflate([]string{tc.offer}); got != tc.want {
			t.Errorf("offer %q: got %t, want %t", tc.offer, got, tc.want)
		}
	}
}

func TestCheckAnswer(t *testing.T) {
	told := &agreement{Subprotocol: "chat", Extensions: noTakeover + "; server_max_window_bits=12", Rsv: 1}
	plain := &agreement{Subprotocol: "chat"}
	for _, tc := range []struct {
		name       string
		rule       extensionRule
		first      bool
		agreed     *agreement
		protocol   string
		extensions string
		ok         bool
	}{
		{"anything end to end", extPassthrough, true, plain, "x", "foo; bar", true},
		{"nothing", extContinuity, true, plain, "", "", true},
		{"no takeover", extContinuity, true, plain, "", noTakeover, true},
		{"takeover", extContinuity, true, plain, "", "permessage-deflate", false},
		{"another extension", extOff, true, plain, "", "foo", false},
		{"small client window for the client", extContinuity, true, plain, "", noTakeover + "; client_max_window_bits=9", false},
		{"full client window for the client", extContinuity, true, plain, "", noTakeover + "; client_max_window_bits=15", true},
		{"small client window for us", extTerminate, true, plain, "", noTakeover + "; client_max_window_bits=9", true},
		{"another subprotocol", extContinuity, false, plain, "other", "", false},
		{"no subprotocol any more", extContinuity, false, plain, "", "", false},
		{"the same again", extContinuity, false, told, "chat", noTakeover + "; server_max_window_bits=12", true},
		{"a smaller window", extContinuity, false, told, "chat", noTakeover + "; server_max_window_bits=10", true},
		{"a larger window", extContinuity, false, told, "chat", noTakeover, false},
		{"no compression any more", extContinuity, false, told, "chat", "", false},
		{"compression all at once", extContinuity, false, plain, "chat", noTakeover, false},
		{"no compression any more for us", extTerminate, false, plain, "chat", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{}
			if tc.protocol != "" {
				h.Set("Sec-WebSocket-Protocol", tc.protocol)
			}
			if tc.extensions != "" {
				h.Set("Sec-WebSocket-Extensions", tc.extensions)
			}
			if err := tc.rule.checkAnswer(h, tc.first, tc.agreed); (err == nil) != tc.ok {
				t.Errorf("got %v, want ok %t", err, tc.ok)
			}
		})
	}
}

// Who is answered without an upstream is told a subprotocol, and not its token.
func TestAloneAnswer(t *testing.T) {
	for offer, want := range map[string]string{
		"":                              "",
		"chat, superchat":               "chat",
		"base64url.bearer.phx.eA, chat": "chat",
		"base64url.bearer.phx.eA":       "",
		"access_token, eA":              "access_token",
	} {
		h := http.Header{}
		if offer != "" {
			h.Set("Sec-Websocket-Protocol", offer)
		}
		if got := aloneAnswer(h).Get("Sec-Websocket-Protocol"); got != want {
			t.Errorf("of %q: got %q, want %q", offer, got, want)
		}
	}
}
