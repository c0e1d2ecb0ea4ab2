package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheckUpgrade(t *testing.T) {
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	for _, tt := range []struct {
		name   string
		edit   func(*http.Request)
		ws     bool
		status int // 0: no problem
		header string
	}{
		{name: "good", ws: true},
		{name: "any case, in lists", ws: true, edit: func(r *http.Request) {
			set("Upgrade", "h2c, WebSocket")(r)
			set("Connection", "keep-alive", "close ,UPGRADE")(r)
		}},
		{name: "no upgrade", edit: set("Upgrade")},
		{name: "another protocol", edit: set("Upgrade", "h2c")},
		{name: "almost the protocol", edit: set("Upgrade", "websocket2")},
		{name: "POST", ws: true, status: 405, header: "Allow", edit: func(r *http.Request) { r.Method = "POST" }},
		{name: "HEAD", ws: true, status: 405, header: "Allow", edit: func(r *http.Request) { r.Method = "HEAD" }},
		{name: "HTTP/1.0", ws: true, status: 400, edit: func(r *http.Request) { r.ProtoMinor = 0 }},
		{name: "HTTP/2", ws: true, status: 400, edit: func(r *http.Request) { r.ProtoMajor = 2 }},
		{name: "no host", ws: true, status: 400, edit: func(r *http.Request) { r.Host = "" }},
		{name: "no Connection", ws: true, status: 400, edit: set("Connection")},
		{name: "Connection without upgrade", ws: true, status: 400, edit: set("Connection", "keep-alive")},
		{name: "no version", ws: true, status: 400, header: "Sec-WebSocket-Version", edit: set("Sec-WebSocket-Version")},
		{name: "two versions", ws: true, status: 400, header: "Sec-WebSocket-Version", edit: set("Sec-WebSocket-Version", "13", "13")},
		{name: "version 8", ws: true, status: 426, header: "Sec-WebSocket-Version", edit: set("Sec-WebSocket-Version", "8")},
		{name: "a list of versions", ws: true, status: 426, header: "Sec-WebSocket-Version", edit: set("Sec-WebSocket-Version", "13, 8")},
		{name: "no key", ws: true, status: 400, edit: set("Sec-WebSocket-Key")},
		{name: "empty key", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "")},
		{name: "two keys", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==")},
		{name: "short key", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")},
		{name: "long key", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWVl")},
		{name: "key not in base64", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!==")},
		{name: "unpadded key", ws: true, status: 400, edit: set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")},
		{name: "body", ws: true, status: 400, edit: func(r *http.Request) { r.ContentLength = 3 }},
		{name: "chunked body", ws: true, status: 400, edit: func(r *http.Request) { r.ContentLength = -1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "http://host/", nil)
			set("Upgrade", "websocket")(r)
			set("Connection", "Upgrade")(r)
			set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")(r)
			set("Sec-WebSocket-Version", "13")(r)
			if tt.edit != nil {
				tt.edit(r)
			}
			ws, problem := checkUpgrade(r)
			status := 0
			if problem != nil {
				status = problem.Status
			}
			if ws != tt.ws || status != tt.status {
				t.Errorf("got %v, %d; want %v, %d", ws, status, tt.ws, tt.status)
			}
			if tt.header != "" && problem != nil && problem.Header.Get(tt.header) == "" {
				t.Errorf("no %s in the answer", tt.header)
			}
		})
	}
}

func TestWebSocketOnly(t *testing.T) {
	for method, want := range map[string]int{"GET": 426, "POST": 405, "HEAD": 405} {
		problem := checkWebSocketOnly(httptest.NewRequest(method, "/", nil))
		if problem.Status != want {
			t.Errorf("%s got %d, want %d", method, problem.Status, want)
		}
		if want == 426 && (!strings.EqualFold(problem.Header.Get("Upgrade"), "websocket") || problem.Header.Get("Connection") == "") {
			t.Errorf("426 without Upgrade: %v", problem.Header)
		}
	}
}
