// Package golang adapts Go's WebSocket libraries to the matrix, one file
// each: a client and a server that nobody here wrote.
package golang

import (
	"net"
	"net/http"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// Clients are the client libraries by name.
var Clients = map[string]play.Client{
	"coder":   coderClient,
	"gobwas":  gobwasClient,
	"gorilla": gorillaClient,
	"gws":     gwsClient,
	"nhooyr":  nhooyrClient,
}

// Servers are the server libraries by name: each makes the handler of its
// backend.
var Servers = map[string]func(*play.Reports) http.Handler{
	"coder":   coderServer,
	"gobwas":  gobwasServer,
	"gorilla": gorillaServer,
	"gws":     gwsServer,
	"nhooyr":  nhooyrServer,
}

// inbox is how many events a client may be behind its case.
const inbox = 64

// abort resets the TCP connection.
func abort(conn net.Conn) error {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return conn.Close()
}

func header(values map[string]string) http.Header {
	h := make(http.Header)
	for name, value := range values {
		h.Set(name, value)
	}
	return h
}

// answer is what every server adds to its 101.
func answer() http.Header {
	return http.Header{"Set-Cookie": {play.Cookie}, "X-Server": {play.ServerTag}}
}
