package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// summary is the table printed at the end of a verbose run.
var summary table

// table says for each pair and way how many cases were played, and whether
// their rows were as they should be.
type table struct {
	mu    sync.Mutex
	pairs []string
	cells map[string]map[way]string
	cases map[string]map[string]bool // by pair: the cases played
}

func (s *table) add(client, server string, w way, got rows, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cells == nil {
		s.cells = make(map[string]map[way]string)
		s.cases = make(map[string]map[string]bool)
	}
	pair := client + "\t" + server
	if s.cells[pair] == nil {
		s.pairs = append(s.pairs, pair)
		s.cells[pair] = make(map[way]string)
		s.cases[pair] = make(map[string]bool)
	}
	mark := "="
	if failed {
		mark = "FAIL"
	}
	s.cells[pair][w] = fmt.Sprintf("%d %s", len(got), mark)
	for name := range got {
		s.cases[pair][name] = true
	}
}

// String returns the table, and below it what each pair did not play.
func (s *table) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pairs) == 0 {
		return ""
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "client\tserver")
	for _, way := range ways() {
		fmt.Fprintf(w, "\t%s", way)
	}
	fmt.Fprintln(w, "\tnot played")
	for _, pair := range slices.Sorted(slices.Values(s.pairs)) {
		fmt.Fprint(w, pair)
		for _, way := range ways() {
			fmt.Fprintf(w, "\t%s", s.cells[pair][way])
		}
		var missing []string
		for _, c := range cases {
			if s.cases[pair]["text"] && !s.cases[pair][c.Name] {
				missing = append(missing, c.Name)
			}
		}
		fmt.Fprintf(w, "\t%s\n", strings.Join(missing, ", "))
	}
	_ = w.Flush()
	return out.String()
}
