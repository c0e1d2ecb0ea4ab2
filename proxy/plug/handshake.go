package plug

import (
	"net/http"
	"strings"
)

// HasToken says whether a comma-separated field has the token, in any case.
func HasToken(lines []string, token string) bool {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(element), token) {
				return true
			}
		}
	}
	return false
}

// AsksWebSocket says whether a request asks for a WebSocket, well or badly.
func AsksWebSocket(r *http.Request) bool { return HasToken(r.Header["Upgrade"], "websocket") }
