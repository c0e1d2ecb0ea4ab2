package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// TestSocketIO: a session begins with HTTP polling and moves to a WebSocket;
// both are on one route.
func TestSocketIO(t *testing.T) {
	gate(t)
	stack(t, "socketio-client.mjs", "    http: true\n", func(t *testing.T) string {
		address, _ := childServer(node, "socketio-server.mjs")(t, new(play.Reports))
		return address
	})
}

// TestGraphQL: graphql-transport-ws, with its own close codes.
func TestGraphQL(t *testing.T) {
	gate(t)
	stack(t, "graphql-client.mjs", "", func(t *testing.T) string {
		address, _ := childServer(node, "graphql-server.mjs")(t, new(play.Reports))
		return address
	})
}

// TestMQTT: a broker over WebSocket, with binary messages and last wills.
func TestMQTT(t *testing.T) {
	gate(t)
	stack(t, "mqtt-client.mjs", "", startMosquitto)
}

// stack runs a client script against the server directly and through each
// way; all rows must be the direct ones.
func stack(t *testing.T, client, keys string, serve func(*testing.T) string) {
	address := serve(t)
	var own []play.Result
	for _, w := range ways() {
		t.Run(string(w), func(t *testing.T) {
			got := playChild(t, node(t, client, "ws://"+w.front(t, address, keys)))
			if w == direct {
				own = got
			}
			for i, r := range got {
				if i < len(own) && !slices.Equal(r.Row, own[i].Row) {
					t.Errorf("%s: the row is\n\t%s\nand directly\n\t%s", r.Case, strings.Join(r.Row, "\n\t"), strings.Join(own[i].Row, "\n\t"))
				}
			}
			if len(got) == 0 || len(got) != len(own) {
				t.Errorf("%d cases came back, directly %d", len(got), len(own))
			}
			all := make(rows)
			for _, r := range got {
				all[r.Case] = r.Row
			}
			summary.add(client, t.Name()[:strings.Index(t.Name(), "/")], w, all, t.Failed())
		})
	}
}

func startMosquitto(t *testing.T) string {
	mosquitto := tool(t, "mosquitto", "/usr/sbin/mosquitto")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	free := freeAddresses(t, 2)
	address := free[0]
	// This broker does not start with WebSocket listeners alone.
	config := fmt.Sprintf("user %s\nallow_anonymous true\nlistener %s 127.0.0.1\nlistener %s 127.0.0.1\nprotocol websockets\n",
		me.Username, port(free[1]), port(address))
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, exec.Command(mosquitto, "-c", file), func([]byte) {})
	awaitListener(t, address, c)
	return address
}

// awaitListener returns when something listens on address.
func awaitListener(t testing.TB, address string, c *child) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for !listens(address) {
		select {
		case <-tick.C:
		case <-c.done:
			t.Fatalf("%s ended at once", c.cmd.Path)
		case <-deadline:
			t.Fatalf("nothing listens on %s", address)
		}
	}
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
