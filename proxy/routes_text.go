package proxy

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/stentproxy/stent/config"
)

// WriteRoutes prints the routes in the order in which they are tried, then
// what stands behind the names of pipelines and upstreams in them.
func WriteRoutes(w io.Writer, t *Table, upstreams map[string]config.Upstream) error {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PATH\tHOST\tMETHODS\tTHROUGH\tMODE\tHTTP\tUPSTREAM")
	for _, e := range t.Endpoints {
		http := "-"
		if e.Route.HTTP {
			http = "yes"
		}
		upstream := e.Route.Upstream
		if e.Route.StripPrefix {
			upstream += " (prefix stripped)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			e.Pattern,
			cmp.Or(e.Host, "*"),
			cmp.Or(strings.Join(e.Route.Methods, ","), "*"),
			cmp.Or(strings.Join(e.Pipelines, ", "), "-"),
			cmp.Or(e.Mode, "-"),
			http,
			upstream)
	}
	section := func(title string) { fmt.Fprintf(table, "\n%s\n", title) }

	section("PIPELINES")
	writePlugs(table, "endpoint", t.front.Names())
	for _, name := range slices.Sorted(maps.Keys(t.pipelines)) {
		writePlugs(table, name, t.pipelines[name].Names())
	}
	section("UPSTREAMS")
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		pool := upstreams[name]
		for i, target := range pool.Targets {
			first, balance := "", ""
			if i == 0 {
				first, balance = name, string(pool.Balance.Kind)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", first, balance, target.Name, target.URL)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("format routes: %w", err)
	}
	// An empty last column leaves blanks at the ends of lines.
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("print routes: %w", err)
		}
	}
	return nil
}

func writePlugs(w io.Writer, name string, plugs []string) {
	fmt.Fprintf(w, "%s\t%s\n", name, cmp.Or(strings.Join(plugs, " -> "), "-"))
}
