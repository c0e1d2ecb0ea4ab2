package proxy

import (
	"encoding/base64"
	"net/http"

	"github.com/stentproxy/stent/proxy/plug"
)

// checkUpgrade says whether r asks for a WebSocket, and what is wrong with
// its handshake by RFC 6455 section 4.2.1. A request that asks for another
// protocol, or none, is no WebSocket and no problem here.
func checkUpgrade(r *http.Request) (ws bool, problem *Problem) {
	if !plug.AsksWebSocket(r) {
		return false, nil
	}
	key := r.Header["Sec-Websocket-Key"]
	version := r.Header["Sec-Websocket-Version"]
	switch {
	case r.Method != http.MethodGet:
		return true, methodNotAllowed([]string{http.MethodGet})
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return true, badRequest("a WebSocket handshake needs HTTP/1.1")
	case r.Host == "":
		return true, badRequest("a WebSocket handshake needs a Host")
	case !plug.HasToken(r.Header["Connection"], "upgrade"):
		return true, badRequest(`a WebSocket handshake needs "Connection: Upgrade"`)
	case len(version) != 1:
		return true, badRequest("a WebSocket handshake needs one Sec-WebSocket-Version").Set("Sec-WebSocket-Version", "13")
	case version[0] != "13":
		return true, upgradeRequired("only version 13 of the WebSocket protocol is spoken here")
	case len(key) != 1 || !validKey(key[0]):
		return true, badRequest("a WebSocket handshake needs one Sec-WebSocket-Key of 16 bytes in base64")
	case r.ContentLength != 0:
		// A body would stand where the first frame does, and what the two ends
		// take for it may differ.
		return true, badRequest("a WebSocket handshake has no body")
	}
	return true, nil
}

// checkWebSocketOnly says what is wrong with a request that is no WebSocket
// handshake on a route that takes nothing else.
func checkWebSocketOnly(r *http.Request) *Problem {
	if r.Method != http.MethodGet {
		return methodNotAllowed([]string{http.MethodGet})
	}
	return upgradeRequired("this resource is a WebSocket")
}

// validKey says whether a Sec-WebSocket-Key is the base64 form of 16 bytes.
func validKey(key string) bool {
	if len(key) != base64.StdEncoding.EncodedLen(16) {
		return false
	}
	nonce, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(nonce) == 16
}
