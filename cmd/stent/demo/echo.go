package demo

import (
	"net/http"

	"github.com/coder/websocket"
)

// maxEcho bounds a message that is echoed, in bytes.
const maxEcho = 16 << 20

// echo sends every message back as it came.
func echo(w http.ResponseWriter, req *http.Request) {
	conn, err := websocket.Accept(w, req, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxEcho)
	for {
		kind, data, err := conn.Read(req.Context())
		if err != nil {
			return
		}
		if err := conn.Write(req.Context(), kind, data); err != nil {
			return
		}
	}
}
