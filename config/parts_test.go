package config

import (
	"testing"
	"time"
)

func TestExpand(t *testing.T) {
	lookup := func(name string) (string, bool) {
		value, ok := map[string]string{"A": "one", "EMPTY": "", "NESTED": "${A}$$"}[name]
		return value, ok
	}
	for _, test := range []struct{ name, text, want, err string }{
		{name: "nothing", text: "plain", want: "plain"},
		{name: "variable", text: "<${A}>", want: "<one>"},
		{name: "two", text: "${A}${A}", want: "oneone"},
		{name: "empty", text: "<${EMPTY}>", want: "<>"},
		{name: "default", text: "${NONE:-two}", want: "two"},
		{name: "default of empty", text: "${EMPTY:-two}", want: "two"},
		{name: "default unused", text: "${A:-two}", want: "one"},
		{name: "default is nothing", text: "<${NONE:-}>", want: "<>"},
		{name: "default with a colon", text: "${NONE:-ws://a:1}", want: "ws://a:1"},
		{name: "dollar", text: "$$", want: "$"},
		{name: "dollar before brace", text: "$${A}", want: "${A}"},
		{name: "three dollars", text: "$$${A}", want: "$one"},
		{name: "lone dollar", text: "a$b $", want: "a$b $"},
		{name: "not again", text: "${NESTED}", want: "${A}$$"},
		{name: "missing", text: "${NONE}", err: "the environment variable NONE is not set"},
		{name: "unclosed", text: "${A", err: `"${" without "}"; write $${ for the characters themselves`},
		{name: "no name", text: "${}", err: "${} names no variable; write $${ for the characters themselves"},
		{name: "bad name", text: "${1A}", err: "${1A} names no variable; write $${ for the characters themselves"},
		{name: "nested default", text: "${NONE:-${A}}", err: "the default of ${NONE} holds another variable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := expand(test.text, lookup)
			if message := errorText(err); got != test.want || message != test.err {
				t.Errorf("got %q, %q, want %q, %q", got, message, test.want, test.err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEndpoint(t *testing.T) {
	for _, test := range []struct {
		url     string
		want    Endpoint
		address string
	}{
		{"ws://10.0.0.1:4000", Endpoint{Host: "10.0.0.1", Port: 4000}, "10.0.0.1:4000"},
		{"WS://a", Endpoint{Host: "a", Port: 80}, "a:80"},
		{"wss://a/", Endpoint{TLS: true, Host: "a", Port: 443}, "a:443"},
		{"http://a_b:1/x/y/", Endpoint{Host: "a_b", Port: 1, Path: "/x/y"}, "a_b:1"},
		{"https://a/x%2Fy", Endpoint{TLS: true, Host: "a", Port: 443, Path: "/x%2Fy"}, "a:443"},
		{"ws://[::1]:9000", Endpoint{Host: "::1", Port: 9000}, "[::1]:9000"},
		{"dns+ws://a:1", Endpoint{Discovery: DiscoverDNS, Host: "a", Port: 1}, "a:1"},
		{"dns+wss://a:1/x", Endpoint{Discovery: DiscoverDNS, TLS: true, Host: "a", Port: 1, Path: "/x"}, "a:1"},
		{"srv+ws://_ws._tcp.a", Endpoint{Discovery: DiscoverSRV, Host: "_ws._tcp.a"}, "_ws._tcp.a"},
		{"unix:/run/a.sock", Endpoint{Discovery: DiscoverUnix, Socket: "/run/a.sock"}, "unix:/run/a.sock"},
		{"unix:///run//a.sock", Endpoint{Discovery: DiscoverUnix, Socket: "/run/a.sock"}, "unix:/run/a.sock"},
	} {
		t.Run(test.url, func(t *testing.T) {
			got, err := Target{URL: test.url}.Endpoint()
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if address := got.Address(); address != test.address {
				t.Errorf("address: got %q, want %q", address, test.address)
			}
		})
	}
}

func TestJoinPath(t *testing.T) {
	for _, test := range []struct{ scope, path, want string }{
		{"", "/x", "/x"},
		{"", "/", "/"},
		{"", "/*", "/*"},
		{"/", "/x", "/x"},
		{"/", "/", "/"},
		{"/live", "/*", "/live/*"},
		{"/live/", "/x", "/live/x"},
		{"/live", "/", "/live"},
		{"/live", "", "/live"},
	} {
		if got := JoinPath(test.scope, test.path); got != test.want {
			t.Errorf("JoinPath(%q, %q): got %q, want %q", test.scope, test.path, got, test.want)
		}
	}
}

func TestCoversHost(t *testing.T) {
	for _, test := range []struct {
		outer, inner string
		want         bool
	}{
		{"", "", true},
		{"", "a.com", true},
		{"a.com", "", false},
		{"a.com", "A.com.", true},
		{"a.com", "b.com", false},
		{"*.a.com", "b.a.com", true},
		{"*.a.com", "a.com", false},
		{"*.a.com", "*.b.a.com", true},
		{"*.a.com", "xa.com", false},
		{"*.a.com", "", false},
		{"b.a.com", "*.a.com", false},
	} {
		if got := coversHost(test.outer, test.inner); got != test.want {
			t.Errorf("coversHost(%q, %q): got %v, want %v", test.outer, test.inner, got, test.want)
		}
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"upstream", "pipe_through", "host", "http", "path"}
	for _, test := range []struct{ word, want string }{
		{"upstraem", "upstream"},
		{"Upstream", "upstream"},
		{"pipeThrough", "pipe_through"},
		{"pipe-through", "pipe_through"},
		{"hots", "host"},
		{"x", ""},
		{"", ""},
		{"kubernetes", ""},
	} {
		if got := suggest(test.word, names); got != test.want {
			t.Errorf("suggest(%q): got %q, want %q", test.word, got, test.want)
		}
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[Size]string{0: "0", 1: "1", 1023: "1023", 1024: "1KiB", 1536: "1536", 64 << 10: "64KiB", 16 << 20: "16MiB", 3 << 30: "3GiB"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d): got %q, want %q", int64(size), got, want)
		}
	}
}

// A file with tabs before a problem has its caret under it all the same.
func TestExcerpt(t *testing.T) {
	for _, test := range []struct {
		name, line   string
		column       int
		text, blanks string
	}{
		{"start", "abc", 1, "abc", ""},
		{"tabs", "\tab: c", 4, "\tab: c", "\t  "},
		{"wide", "é: x", 4, "é: x", "   "},
		{"behind", "ab", 3, "ab", "  "},
		{"empty", "", 1, "", ""},
	} {
		text, blanks := excerpt(test.line, test.column)
		if text != test.text || blanks != test.blanks {
			t.Errorf("%s: got %q, %q, want %q, %q", test.name, text, blanks, test.text, test.blanks)
		}
	}
}

// A node's kind is that of YAML 1.2, not of 1.1.
func TestPlainKind(t *testing.T) {
	for text, want := range map[string]kind{
		"": kindNull, "~": kindNull, "null": kindNull, "true": kindBool, "False": kindBool,
		"yes": kindString, "off": kindString, "none": kindString, "n": kindString,
		"1": kindInt, "-1": kindInt, "010": kindInt, "0o17": kindInt, "0xfF": kindInt, "1_000": kindString,
		"0b1": kindString, "1.5": kindFloat, "1e3": kindFloat, ".5": kindFloat, "-.inf": kindFloat, ".nan": kindFloat,
		"1.2.3": kindString, "12:30": kindString, "0.0.0.0": kindString, "10s": kindString, "2001-01-01": kindString,
	} {
		if got := plainKind(text); got != want {
			t.Errorf("plainKind(%q): got %v, want %v", text, got, want)
		}
	}
}

func TestAdminListen(t *testing.T) {
	for _, test := range []struct {
		address, network, at string
		on                   bool
	}{
		{"127.0.0.1:4001", "tcp", "127.0.0.1:4001", true},
		{"unix:/run/stent.sock", "unix", "/run/stent.sock", true},
		{"off", "", "", false},
	} {
		network, at, on := Admin{Address: test.address}.Listen()
		if network != test.network || at != test.at || on != test.on {
			t.Errorf("%s: got %s %s %v", test.address, network, at, on)
		}
	}
}

func TestAdminUnguarded(t *testing.T) {
	for _, test := range []struct {
		address, token string
		want           bool
	}{
		{":4001", "", true},
		{":4001", "t0ken", false},
		{"10.0.0.5:4001", "", true},
		{"stent.internal:4001", "", true},
		{"127.0.0.1:4001", "", false},
		{"localhost:4001", "", false},
		{"[::1]:4001", "", false},
		{"unix:/run/stent.sock", "", false},
		{"off", "", false},
	} {
		if got := (Admin{Address: test.address, Token: NewSecret(test.token)}).Unguarded(); got != test.want {
			t.Errorf("%s with token %q: got %v, want %v", test.address, test.token, got, test.want)
		}
	}
}

func TestDurationStd(t *testing.T) {
	if got := seconds(2).Std(); got != 2*time.Second {
		t.Errorf("got %v", got)
	}
}
