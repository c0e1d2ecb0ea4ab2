package demo

import (
	"strings"
	"testing"

	"github.com/coder/websocket"

	channels "github.com/stentproxy/stent/cmd/chat/room"
)

func TestChannels(t *testing.T) {
	url := "ws://" + start(t).Address() + channels.Path + "?vsn=2.0.0&name="
	conns := map[string]*websocket.Conn{"ann": dial(t, url+"ann", nil), "": dial(t, url, nil)}
	until := func(conn *websocket.Conn, part string) {
		t.Helper()
		for {
			_, data, err := conn.Read(t.Context())
			if err != nil {
				t.Fatalf("wait for %s: %v", part, err)
			}
			if strings.Contains(string(data), part) {
				return
			}
		}
	}
	for _, conn := range conns {
		say(t, conn, `["1","1","room:lobby","phx_join",{}]`)
		until(conn, `["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]`)
	}
	say(t, conns["ann"], `["1","2","room:lobby","new_msg",{"body":"hello"}]`)
	until(conns[""], `"from":"ann","name":"ann","body":"hello"`)
}
