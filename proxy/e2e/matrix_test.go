package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
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
			var mu sync.Mutex
			baseline := make(map[string]rows)
			for _, w := range ways() {
				t.Run(string(w), func(t *testing.T) {
					front := w.front(t, s.address, "")
					for _, client := range clientKinds() {
						if !full && !slices.Contains(hubs, kind.name) && !slices.Contains(hubs, client.name) {
							continue
						}
						t.Run(client.name, func(t *testing.T) {
							t.Parallel()
							got := playRows(t, client, s, front, cases)
							mu.Lock()
							base := baseline[client.name]
							mu.Unlock()
							if w == direct {
								steady(t, client, s, got)
								mu.Lock()
								baseline[client.name] = got
								mu.Unlock()
							} else {
								compare(t, w, client, s, front, base, got)
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

func playRows(t *testing.T, client clientKind, s *server, front string, cases []play.Case) rows {
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

// again is how often a pair may change its mind: some libraries race with
// themselves at a connection's end, and then have more than one direct row.
const again = 5

// steady plays what a pair did not manage directly again, and fails where it
// does not work at all: what it can't do belongs in its list of lacks.
func steady(t *testing.T, client clientKind, s *server, got rows) {
	t.Helper()
	for _, c := range cases {
		for n := 0; bad(got[c.Name]); n++ {
			if n == again {
				t.Errorf("%s does not work directly:\n\t%s", c.Name, strings.Join(got[c.Name], "\n\t"))
				break
			}
			got[c.Name] = playRows(t, client, s, s.address, []play.Case{c})[c.Name]
		}
	}
}

func bad(row []string) bool {
	return slices.ContainsFunc(row, func(line string) bool {
		return strings.HasPrefix(line, "error ") || strings.Contains(line, "never saw")
	})
}

// compare fails where a row through w, which begins at front, is none that the
// pair has directly. What differs only once through a way without stent is the
// pair's own race, too.
func compare(t *testing.T, w way, client clientKind, s *server, front string, direct, got rows) {
	t.Helper()
	for _, c := range cases {
		row, ok := got[c.Name]
		base, played := direct[c.Name]
		if ok != played {
			t.Errorf("%s: played directly: %v, through %s: %v", c.Name, played, w, ok)
			continue
		}
		row = w.normal(client.name, c, row)
		want := w.expect(c, base)
		for n := 0; n < again && !slices.Equal(row, want); n++ {
			want = w.expect(c, playRows(t, client, s, s.address, []play.Case{c})[c.Name])
			if !w.stent() {
				row = playRows(t, client, s, front, []play.Case{c})[c.Name]
			}
		}
		if !slices.Equal(row, want) {
			t.Errorf("%s: through %s the row is\n\t%s\nand should be\n\t%s", c.Name, w, strings.Join(row, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}
