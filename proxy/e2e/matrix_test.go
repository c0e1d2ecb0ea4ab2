package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// rows are one client's rows against one server, by case.
type rows map[string][]string

// TestMatrix plays every case for pairs of client and server, directly and
// through each way, and compares the rows: what the client saw, then what the
// server saw. Pairs with node-ws are always played, the rest of the square
// with STENT_E2E_FULL=1.
func TestMatrix(t *testing.T) {
	gate(t)
	full := os.Getenv("STENT_E2E_FULL") == "1"
	for _, kind := range serverKinds() {
		t.Run(kind.name, func(t *testing.T) {
			s := kind.start(t)
			baseline := make(map[string]rows)
			for _, w := range ways() {
				t.Run(string(w), func(t *testing.T) {
					front := w.front(t, s.address, "")
					for _, client := range clientKinds() {
						if !full && !slices.Contains(hubs, kind.name) && !slices.Contains(hubs, client.name) {
							continue
						}
						t.Run(client.name, func(t *testing.T) {
							got := playRows(t, client, s, front)
							if w == direct {
								baseline[client.name] = got
								checkBaseline(t, got)
							} else {
								compare(t, w, client.name, baseline[client.name], got)
							}
							summary.add(client.name, kind.name, w, got, t.Failed())
						})
					}
				})
			}
		})
	}
}

// hubs are played against every library.
var hubs = []string{"node-ws", "go-gorilla"}

// misfits are pairs that don't agree on compression even directly: this
// client refuses an answer without both no_context_takeover parameters.
var misfits = map[string]bool{"go-gorilla py-aiohttp": true}

var keys atomic.Int64

func playRows(t *testing.T, client clientKind, s *server, front string) rows {
	t.Helper()
	key := make(map[string]string)
	var mine []play.Case
	for _, c := range cases {
		if slices.ContainsFunc(c.ServerNeeds, func(need string) bool { return slices.Contains(s.lacks, need) }) ||
			c.Deflate && (slices.Contains(s.lacks, play.Deflate) || misfits[client.name+" "+s.name]) {
			continue
		}
		key[c.Name] = fmt.Sprintf("K%dK", keys.Add(1))
		joint := "?"
		if strings.Contains(c.Target, "?") {
			joint = "&"
		}
		c.Target += joint + "k=" + key[c.Name]
		c.Protocols = append([]string{}, c.Protocols...) // [] in JSON, not null
		c.Show = append([]string{}, c.Show...)
		c.Needs = append([]string{}, c.Needs...)
		c.Steps = append([]play.Step{}, c.Steps...)
		if c.Headers == nil {
			c.Headers = map[string]string{}
		}
		mine = append(mine, c)
	}
	results := client.play(t, "ws://"+front, mine)
	got := make(rows)
	for _, r := range results {
		if r.NA != "" {
			continue
		}
		row := r.Row
		if len(row) > 0 && strings.HasPrefix(row[0], "open") {
			for _, event := range reportsUntilClose(s.reports, key[r.Case]) {
				row = append(row, "server "+event)
			}
		}
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], key[r.Case], "KEY")
		}
		got[r.Case] = row
	}
	if len(results) != len(mine) {
		t.Errorf("%d of %d cases came back", len(results), len(mine))
	}
	return got
}

// reportsUntilClose returns what the server saw of a session, once it has
// seen the end.
func reportsUntilClose(reports *play.Reports, key string) []string {
	late := time.After(10 * time.Second)
	for {
		events, more := reports.Of(key)
		if slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "close ") }) {
			return events
		}
		select {
		case <-more:
		case <-late:
			return append(events, "never saw the end")
		}
	}
}

// checkBaseline fails where a pair does not work even directly: what it can't
// do belongs in its list of lacks.
func checkBaseline(t *testing.T, got rows) {
	t.Helper()
	for _, c := range cases {
		row := strings.Join(got[c.Name], "\n\t")
		if strings.Contains(row, "error ") || strings.Contains(row, "never saw") {
			t.Errorf("%s does not work directly:\n\t%s", c.Name, row)
		}
	}
}

func compare(t *testing.T, w way, client string, direct, got rows) {
	t.Helper()
	for _, c := range cases {
		row, ok := got[c.Name]
		base, played := direct[c.Name]
		if ok != played {
			t.Errorf("%s: played directly: %v, through %s: %v", c.Name, played, w, ok)
			continue
		}
		want := w.expect(c, base)
		if got := w.normal(client, c, row); !slices.Equal(got, want) {
			t.Errorf("%s: through %s the row is\n\t%s\nand should be\n\t%s", c.Name, w, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}
