package proxy

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/plug"
)

// proxies are the trusted networks of these tests.
var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

// header makes a header of name, value, name, value.
func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// from is a request from a peer.
func from(peer string, h http.Header) *http.Request {
	r := httptest.NewRequest("GET", "http://asked.test:4000/", nil)
	r.RemoteAddr, r.Header = peer, h
	return r
}

func TestClientIP(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		header     http.Header
		want       string
	}{
		{"nothing said", "192.0.2.1:1", header(), "192.0.2.1"},
		{"said by anybody", "192.0.2.1:1", header("X-Forwarded-For", "1.1.1.1"), "192.0.2.1"},
		{"said by a proxy", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1"), "1.1.1.1"},
		{"forged before the proxy", "10.0.0.1:1", header("X-Forwarded-For", "9.9.9.9, 1.1.1.1"), "1.1.1.1"},
		{"two proxies", "10.0.0.1:1", header("X-Forwarded-For", "9.9.9.9, 1.1.1.1, 10.0.0.2"), "1.1.1.1"},
		{"several lines", "10.0.0.1:1", header("X-Forwarded-For", "9.9.9.9, 1.1.1.1", "X-Forwarded-For", "10.0.0.2"), "1.1.1.1"},
		{"proxies alone", "10.0.0.1:1", header("X-Forwarded-For", "10.0.0.3, 10.0.0.2"), "10.0.0.3"},
		{"proxy said nothing", "10.0.0.1:1", header(), "10.0.0.1"},
		{"malformed at once", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1, unknown"), "10.0.0.1"},
		{"malformed further on", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1, what, 10.0.0.2"), "10.0.0.2"},
		{"empty entry", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1,"), "10.0.0.1"},
		{"with ports", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1:5000, 10.0.0.2:80"), "1.1.1.1"},
		{"IPv6", "[fd00::1]:1", header("X-Forwarded-For", "2001:db8::1"), "2001:db8::1"},
		{"IPv6 in brackets", "[fd00::1]:1", header("X-Forwarded-For", "[2001:db8::1]"), "2001:db8::1"},
		{"IPv6 with port", "[fd00::1]:1", header("X-Forwarded-For", "[2001:db8::1]:443"), "2001:db8::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1", header("X-Forwarded-For", "::ffff:1.1.1.1"), "1.1.1.1"},
		{"IPv4 in IPv6 of a proxy", "[::ffff:10.0.0.1]:1", header("X-Forwarded-For", "1.1.1.1, ::ffff:10.0.0.2"), "1.1.1.1"},
		{"zone", "[fe80::1%eth0]:1", header(), "fe80::1"},
		{"Forwarded", "10.0.0.1:1", header("Forwarded", `for=9.9.9.9, For="[2001:db8::1]:47";proto=https, for=10.0.0.2`), "2001:db8::1"},
		{"Forwarded with a comma in quotes", "10.0.0.1:1", header("Forwarded", `for=1.1.1.1;by="a,b\",;for=2.2.2.2"`), "1.1.1.1"},
		{"Forwarded without for", "10.0.0.1:1", header("Forwarded", `for=1.1.1.1, proto=https`), "10.0.0.1"},
		{"Forwarded obfuscated", "10.0.0.1:1", header("Forwarded", `for=1.1.1.1, for=_hidden`), "10.0.0.1"},
		{"X-Forwarded-For before Forwarded", "10.0.0.1:1", header("X-Forwarded-For", "1.1.1.1", "Forwarded", "for=2.2.2.2"), "1.1.1.1"},
		{"X-Real-IP", "10.0.0.1:1", header("X-Real-Ip", "1.1.1.1"), "1.1.1.1"},
		{"no address", "@", header("X-Forwarded-For", "1.1.1.1"), "invalid IP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, info := admit(from(tt.peer, tt.header), proxies, ownedFields{})
			if got := info.ClientIP.String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSchemeAndHost(t *testing.T) {
	for _, tt := range []struct {
		name, peer   string
		tls          bool
		header       http.Header
		scheme, host string
	}{
		{"plain", "192.0.2.1:1", false, header(), "http", "asked.test:4000"},
		{"TLS", "192.0.2.1:1", true, header(), "https", "asked.test:4000"},
		{"said by anybody", "192.0.2.1:1", false, header("X-Forwarded-Proto", "https", "X-Forwarded-Host", "forged"), "http", "asked.test:4000"},
		{"said by a proxy", "10.0.0.1:1", false, header("X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.test"), "https", "public.test"},
		{"downgraded by a proxy", "10.0.0.1:1", true, header("X-Forwarded-Proto", "HTTP"), "http", "asked.test:4000"},
		{"WebSocket schemes", "10.0.0.1:1", false, header("X-Forwarded-Proto", "wss"), "https", "asked.test:4000"},
		{"nonsense", "10.0.0.1:1", true, header("X-Forwarded-Proto", "gopher", "X-Forwarded-Host", ""), "https", "asked.test:4000"},
		{"lists", "10.0.0.1:1", false, header("X-Forwarded-Proto", "http, https", "X-Forwarded-Host", "forged, public.test"), "https", "public.test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := from(tt.peer, tt.header)
			if tt.tls {
				r.TLS = new(tls.ConnectionState)
			}
			_, info := admit(r, proxies, ownedFields{})
			if info.Scheme != tt.scheme || info.Host != tt.host {
				t.Errorf("got %s and %s, want %s and %s", info.Scheme, info.Host, tt.scheme, tt.host)
			}
		})
	}
}

func TestForgedFieldsAreDropped(t *testing.T) {
	owned := ownedFields{
		set: map[string]bool{"X-User": true}, withheld: []string{"Origin"}, believed: map[string]bool{"X-Trace": true},
	}
	always := []string{"Stent-Session", "stent-attempt", "Stent_Session", "STENT-ANYTHING", "X-User", "x_user"}
	byAnybody := []string{"Forwarded", "X-Real-Ip", "X-Request-Id", "X_Request_Id", "X-Forwarded-For", "X-Forwarded-Port", "x_forwarded_for", "X-Forwarded_Proto", "X-Trace", "X_trace"}
	kept := []string{"Accept", "X-Forward", "Stent", "User_Agent", "X-User-Agent"}
	for _, peer := range []string{"192.0.2.1:1", "10.0.0.1:1"} {
		h, trailer := make(http.Header), make(http.Header)
		for _, name := range slices.Concat(always, byAnybody, kept) {
			h.Set(name, "1")
			trailer.Set(name, "1")
		}
		want := make(http.Header)
		for _, name := range kept {
			want.Set(name, "1")
		}
		if strings.HasPrefix(peer, "10.") {
			for _, name := range byAnybody {
				want.Set(name, "1")
			}
		}
		r := from(peer, h)
		r.Trailer = trailer
		r, _ = admit(r, proxies, owned)
		if !reflect.DeepEqual(r.Header, want) {
			t.Errorf("from %s left\n%v, want\n%v", peer, r.Header, want)
		}
		if !reflect.DeepEqual(r.Trailer, want) {
			t.Errorf("from %s left trailers\n%v, want\n%v", peer, r.Trailer, want)
		}
	}
}

func TestUpHeader(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		header     http.Header
		edit       func(http.Header)
		want       http.Header
	}{
		{
			name: "a handshake",
			peer: "192.0.2.1:1",
			header: header("Upgrade", "websocket", "Connection", "keep-alive, Upgrade", "Sec-WebSocket-Key", "k", "Sec-WebSocket-Version", "13",
				"Sec-WebSocket-Protocol", "a, b", "Sec-WebSocket-Extensions", "permessage-deflate; x", "Cookie", "a=b; c=\"d\"", "Origin", "http://o",
				"X-Odd", "", "X-Odd", "\xff ,", "Expect", "100-continue", "Content-Length", "0"),
			want: header("Sec-WebSocket-Protocol", "a, b", "Sec-WebSocket-Extensions", "permessage-deflate; x", "Cookie", "a=b; c=\"d\"", "Origin", "http://o",
				"X-Odd", "", "X-Odd", "\xff ,",
				"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "asked.test:4000"),
		},
		{
			name:   "what Connection lists",
			peer:   "192.0.2.1:1",
			header: header("Connection", "close, X-A", "Connection", "x-b,", "X-A", "1", "X-B", "2", "X-C", "3", "Te", "trailers", "Proxy-Authorization", "p", "Keep-Alive", "5"),
			want:   header("X-C", "3", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "asked.test:4000"),
		},
		{
			name:   "Connection can't take away what stent says",
			peer:   "192.0.2.1:1",
			header: header("Connection", "X-Forwarded-For, X-Forwarded-Proto, X-Set"),
			edit:   func(h http.Header) { h.Set("X-Set", "1") },
			want:   header("X-Set", "1", "X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "asked.test:4000"),
		},
		{
			name: "behind a proxy",
			peer: "10.0.0.1:1",
			header: header("X-Forwarded-For", "9.9.9.9", "X-Forwarded-For", "1.1.1.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.test",
				"X-Forwarded-Port", "443", "X-Real-Ip", "1.1.1.1", "Forwarded", "for=1.1.1.1"),
			want: header("X-Forwarded-For", "9.9.9.9, 1.1.1.1, 10.0.0.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.test",
				"X-Forwarded-Port", "443", "X-Real-Ip", "1.1.1.1", "Forwarded", "for=1.1.1.1, for=10.0.0.1"),
		},
		{
			name:   "behind an IPv6 proxy",
			peer:   "[fd00::1]:1",
			header: header("Forwarded", "for=1.1.1.1"),
			want: header("X-Forwarded-For", "fd00::1", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "asked.test:4000",
				"Forwarded", `for=1.1.1.1, for="[fd00::1]"`),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, info := admit(from(tt.peer, tt.header), proxies, ownedFields{})
			if tt.edit != nil {
				info.EditRequest(tt.edit)
			}
			before := r.Header.Clone()
			if got := UpHeader(r, info); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
			if !reflect.DeepEqual(r.Header, before) {
				t.Error("the request's own header has changed")
			}
		})
	}
}

func TestDownHeader(t *testing.T) {
	info := new(plug.Info)
	info.EditResponse(func(h http.Header) { h.Set("X-Set", "1") })
	from := header("Connection", "close, X-Hop", "X-Hop", "1", "Keep-Alive", "5", "Set-Cookie", "a", "Set-Cookie", "b")
	want := header("Set-Cookie", "a", "Set-Cookie", "b", "X-Set", "1")
	if got := DownHeader(from, info); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(from) != 4 {
		t.Error("the answer's own header has changed")
	}
}

// fieldName is RFC 9110's, as net/http demands of a field name.
var fieldName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// FuzzHeader checks that nothing a client says passes for what stent or a
// trusted proxy says.
func FuzzHeader(f *testing.F) {
	f.Add("X-Forwarded-For", "1.1.1.1", "Connection", "X-Forwarded-For", true)
	f.Add("Forwarded", `for="[::1]:1"; proto=http;by="\`, "X_Forwarded-Host", "a", true)
	f.Add("stent_session", "1", "X-USER", "2", false)
	f.Add("X-Forwarded-Proto", "https, ,", "X-Real-Ip", "::ffff:10.0.0.1%1", true)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, trusted bool) {
		if !fieldName.MatchString(name1) || !fieldName.MatchString(name2) {
			return // net/http refuses it
		}
		peer := "192.0.2.1:1"
		if trusted {
			peer = "10.0.0.1:1"
		}
		r := from(peer, header(name1, value1, name2, value2))
		r, info := admit(r, proxies, ownedFields{set: map[string]bool{"X-User": true}, withheld: []string{"Origin"}})
		if info.Scheme != "http" && info.Scheme != "https" {
			t.Errorf("scheme %q", info.Scheme)
		}
		if !info.ClientIP.IsValid() || info.ClientIP.Is4In6() {
			t.Errorf("client IP %v", info.ClientIP)
		}
		if !trusted && (info.ClientIP.String() != "192.0.2.1" || info.Scheme != "http" || info.Host != "asked.test:4000") {
			t.Errorf("an untrusted peer was believed: %+v", info)
		}
		up := UpHeader(r, info)
		for name := range up {
			name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
			if strings.HasPrefix(name, "stent-") || name == "x-user" || name == "origin" || name == "connection" || name == "upgrade" {
				t.Errorf("%s goes up", name)
			}
		}
		chain := up["X-Forwarded-For"]
		if len(chain) != 1 || !strings.HasSuffix(chain[0], info.Peer.String()) {
			t.Errorf("X-Forwarded-For is %q", chain)
		}
		if !trusted && chain[0] != "192.0.2.1" {
			t.Errorf("an untrusted chain goes up: %q", chain)
		}
	})
}
