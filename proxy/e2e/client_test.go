package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/golang"
	"github.com/stentproxy/stent/proxy/e2e/play"
)

// clientKind says how to run one client library.
type clientKind struct {
	name string
	// play plays the cases against ws://host:port and returns one result
	// each, as far as it came.
	play func(t testing.TB, base string, cases []play.Case) []play.Result
}

func clientKinds() []clientKind {
	kinds := []clientKind{
		{"node-ws", childClient(node, "client.mjs", "ws")},
		{"node-faye", childClient(node, "client.mjs", "faye")},
		{"node-websocket", childClient(node, "client.mjs", "websocket")},
		{"node-undici", childClient(node, "client.mjs", "undici")},
		{"py-websockets", childClient(pythonScript, "client.py", "websockets")},
		{"py-aiohttp", childClient(pythonScript, "client.py", "aiohttp")},
		{"chromium", playChromium},
	}
	for _, name := range slices.Sorted(maps.Keys(golang.Clients)) {
		kinds = append(kinds, clientKind{"go-" + name, goClient(name)})
	}
	return kinds
}

func goClient(name string) func(testing.TB, string, []play.Case) []play.Result {
	return func(t testing.TB, base string, cases []play.Case) []play.Result {
		var all []play.Result
		for _, c := range cases {
			all = append(all, golang.Clients[name].Play(t.Context(), base, c))
		}
		return all
	}
}

// casesTime bounds one client's whole list of cases.
const casesTime = 90 * time.Second

func childClient(command command, script, library string) func(testing.TB, string, []play.Case) []play.Result {
	return func(t testing.TB, base string, cases []play.Case) []play.Result {
		t.Helper()
		in, err := json.Marshal(cases)
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(t, script, library, base)
		cmd.Stdin = bytes.NewReader(in)
		return playChild(t, cmd)
	}
}

// playChild runs a client and returns the results that it prints.
func playChild(t testing.TB, cmd *exec.Cmd) []play.Result {
	t.Helper()
	var all []play.Result
	c := start(t, cmd, func(line []byte) {
		if r, err := result(line); err == nil {
			all = append(all, r)
		}
	})
	select {
	case <-c.done:
		if state := c.cmd.ProcessState; !state.Success() {
			t.Errorf("%v: %v", cmd.Args, state)
		}
	case <-time.After(casesTime):
		t.Errorf("%v is not done after %v", cmd.Args, casesTime)
		c.kill()
	}
	return all
}

func result(line []byte) (r play.Result, err error) {
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("result line: %w", err)
	}
	return r, nil
}
