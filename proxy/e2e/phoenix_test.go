package e2e

import (
	"slices"
	"strconv"
	"testing"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// TestPhoenix: Phoenix's own client, as the last two lines of its releases
// ship it, keeps its socket while the server behind is lost many times, at
// last for longer than its heartbeat waits. What was acknowledged is there
// once.
func TestPhoenix(t *testing.T) {
	gate(t)
	const kills = 12
	for _, library := range []string{"phoenix-17", "phoenix-18"} {
		for _, way := range []struct {
			name, joins string
			errors      int
		}{
			{"repeated", "true", 0},
			{"told", "false", 3 * kills},
		} {
			for _, compression := range []string{"off", "terminate"} {
				t.Run(library+"/"+way.name+"/"+compression, func(t *testing.T) {
					address, _ := childServer(node, "phoenix-server.mjs")(t, new(play.Reports))
					keys := "    protocol: phoenix\n    compression: " + compression + "\n" +
						"    continuity: {max_restarts: 1000, backoff: {max: 50ms}, replay: {joins: " + way.joins + "}}\n"
					s := startStent(t, relay.config(address, keys))
					got := playChild(t, node(t, "phoenix-client.mjs", "ws://"+s.address, library, strconv.Itoa(kills), "2500"))
					want := []play.Result{
						{Case: "refused", Row: []string{"unauthorized"}},
						{Case: "left", Row: []string{"closed"}},
						{Case: "crashed", Row: []string{"joined again"}},
						{Case: "killed", Row: []string{"closes 0", "errors " + strconv.Itoa(way.errors), "wrong ", "in order true", "joined joined joined"}},
					}
					if len(got) != len(want) {
						t.Fatalf("%d cases came back, want %d: %v", len(got), len(want), got)
					}
					for i := range want {
						if got[i].Case != want[i].Case || !slices.Equal(got[i].Row, want[i].Row) {
							t.Errorf("got %s %q, want %s %q", got[i].Case, got[i].Row, want[i].Case, want[i].Row)
						}
					}
				})
			}
		}
	}
}
