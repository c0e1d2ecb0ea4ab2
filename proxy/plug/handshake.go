package plug

import (
	"net/http"
	"strings"

	"github.com/stentproxy/stent/proxy/field"
)

// HasToken says whether a comma-separated field has the token, in any case.
func HasToken(lines []string, token string) bool {
	for element := range field.Elements(lines) {
		if strings.EqualFold(element, token) {
			return true
		}
	}
	return false
}

// AsksWebSocket says whether a request asks for a WebSocket, well or badly.
func AsksWebSocket(r *http.Request) bool { return HasToken(r.Header["Upgrade"], "websocket") }
