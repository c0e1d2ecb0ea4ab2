package admin

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/zap"
)

// FuzzOwnHost looks for a name other than localhost that passes for the
// listener's own.
func FuzzOwnHost(f *testing.F) {
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:4001", "[::1]", "[::1]:80", "::1", "evil.example", "localhost.", "[localhost]:1", "", ":", "[", "1", "0x7f.1", "::ffff:127.0.0.1%lo", "::%["} {
		f.Add(host)
	}
	narrow := newGuard("tcp", "127.0.0.1:4001", noToken, zap.NewNop())
	wide := newGuard("tcp", ":4001", noToken, zap.NewNop())
	f.Fuzz(func(t *testing.T, host string) {
		r := &http.Request{Host: host}
		bare := hostOnly(host)
		ip, err := netip.ParseAddr(bare)
		local := strings.EqualFold(bare, "localhost") || err == nil && ip.Unmap().IsLoopback()
		if narrow.ownHost(r) && !local {
			t.Errorf("%q passes on loopback", host)
		}
		if wide.ownHost(r) && !local && err != nil {
			t.Errorf("%q passes on every address", host)
		}
	})
}

// FuzzClose looks for a query that makes a close frame that may not be sent.
func FuzzClose(f *testing.F) {
	for _, query := range []string{"", "code=1000", "code=1005", "code=4999&reason=bye", "reason=%ff", "code=1&code=1000", "code=+1000", ";"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, problem := parseClose(&http.Request{URL: &url.URL{RawQuery: query}})
		switch {
		case problem != nil && problem.Status != http.StatusBadRequest:
			t.Errorf("%q: %v", query, problem)
		case problem == nil && (got.code < 1000 || got.code > 4999 || got.code >= 1004 && got.code <= 1006 ||
			got.code >= 1014 && got.code < 3000 || len(got.reason) > 123 || !utf8.ValidString(got.reason)):
			t.Errorf("%q: %+v", query, got)
		}
	})
}

// FuzzMessageType looks for a media type that is neither refused nor one of
// the two.
func FuzzMessageType(f *testing.F) {
	for _, media := range []string{"", "text/plain", "TEXT/PLAIN; charset=UTF-8", "application/octet-stream", "text/plain; charset=latin1", "text/plain;;", "text"} {
		f.Add(media)
	}
	f.Fuzz(func(t *testing.T, media string) {
		typ, problem := messageType(media)
		lower := strings.ToLower(media)
		if problem == nil && !strings.Contains(lower, "text/plain") && !strings.Contains(lower, "application/octet-stream") {
			t.Errorf("%q is %v", media, typ)
		}
	})
}
