package longpoll

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	own := NewTable().token("KEY")
	for _, tt := range []struct {
		name, query, header string
		rest, token         string
	}{
		{name: "none yet", query: "?vsn=2.0.0&token=null", rest: "?vsn=2.0.0", token: "null"},
		{name: "only", query: "?token=null", rest: "", token: "null"},
		{name: "no query", query: "", rest: "", token: ""},
		{name: "ours", query: "?vsn=2.0.0&token=" + own, rest: "?vsn=2.0.0", token: own},
		{name: "behind the client's", query: "?token=a&vsn=2.0.0&token=b", rest: "?token=a&vsn=2.0.0", token: "b"},
		{name: "the client's alone", query: "?token=a&vsn=2.0.0", rest: "?token=a&vsn=2.0.0", token: ""},
		{name: "odd escapes stay", query: "?a=%zz;b&&token=null&c", rest: "?a=%zz;b&&c", token: "null"},
		{name: "escaped", query: "?token=" + strings.ReplaceAll(own, "-", "%2D"), rest: "", token: own},
		{name: "header", query: "?token=a", header: own, rest: "?token=a", token: own},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/socket/longpoll"+tt.query, nil)
			if tt.header != "" {
				r.Header.Set("X-Phoenix-Longpoll-Token", tt.header)
			}
			before := r.RequestURI
			bare, token := Read(r)
			if want := "/socket/longpoll" + tt.rest; bare.RequestURI != want || token != tt.token {
				t.Errorf("got %q, %q, want %q, %q", bare.RequestURI, token, want, tt.token)
			}
			if bare.URL.RawQuery != strings.TrimPrefix(tt.rest, "?") {
				t.Errorf("query %q", bare.URL.RawQuery)
			}
			if bare.Header.Get("X-Phoenix-Longpoll-Token") != "" {
				t.Error("the token is in the header")
			}
			if r.RequestURI != before || tt.header != r.Header.Get("X-Phoenix-Longpoll-Token") {
				t.Error("the request itself has changed")
			}
		})
	}
}

// The handshake is one that a server takes, whatever the request was.
func TestHandshake(t *testing.T) {
	const raw = "POST /a//longpoll/longpoll?x=/longpoll HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Type: a/b\r\n" +
		"Connection: keep-alive\r\nSec-WebSocket-Extensions: x\r\nX-Own: 1\r\n\r\nhi"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	got := Handshake(r)
	if got.RequestURI != "/a//longpoll/websocket?x=/longpoll" || got.URL.Path != "/a//longpoll/websocket" || got.Method != "GET" || got.ContentLength != 0 {
		t.Errorf("%s %s (%s)", got.Method, got.RequestURI, got.URL.Path)
	}
	for name, want := range map[string]string{"Content-Type": "", "Sec-Websocket-Extensions": "", "X-Own": "1", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Version": "13"} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(got.Header.Get("Sec-Websocket-Key")) != 24 {
		t.Errorf("key %q", got.Header.Get("Sec-Websocket-Key"))
	}
	if r.Header.Get("X-Own") != "1" || r.Header.Get("Upgrade") != "" {
		t.Error("the request itself has changed")
	}
}
