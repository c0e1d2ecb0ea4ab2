package plug

import "testing"

func TestOfferAgain(t *testing.T) {
	for _, tt := range []struct {
		offer        []string
		chosen, want string
	}{
		{nil, "", ""},
		{nil, "unasked", "unasked"},
		{[]string{"one, two"}, "", ""},
		{[]string{"one, two"}, "two", "two"},
		{[]string{"phoenix, base64url.bearer.phx.eA"}, "phoenix", "phoenix, base64url.bearer.phx.eA"},
		{[]string{"base64url.bearer.authorization.k8s.io.eA", "v4.channel.k8s.io,v5.channel.k8s.io"}, "v5.channel.k8s.io",
			"base64url.bearer.authorization.k8s.io.eA, v5.channel.k8s.io"},
		{[]string{"phoenix, base64url.bearer.phx.eA"}, "", "base64url.bearer.phx.eA"},
		{[]string{"access_token, eA, chat"}, "chat", "access_token, eA, chat"},
		{[]string{"access_token, eA"}, "access_token", "access_token, eA"},
		{[]string{"chat, access_token"}, "chat", "chat"},
		{[]string{"base64url.bearer.phx.eA"}, "unasked", "unasked, base64url.bearer.phx.eA"},
	} {
		if got := OfferAgain(tt.offer, tt.chosen); got != tt.want {
			t.Errorf("of %q with %q: got %q, want %q", tt.offer, tt.chosen, got, tt.want)
		}
	}
}
