package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// table prints rows in aligned columns.
type table struct {
	w   *tabwriter.Writer
	err error
}

// newTable begins a table, with a first row of headings if there are any.
func newTable(w io.Writer, header ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row adds one row; an empty cell shows as a dash.
func (t *table) row(cells ...string) {
	shown := make([]string, len(cells))
	for i, c := range cells {
		shown[i] = printable(c)
		if c == "" {
			shown[i] = "-"
		}
	}
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, strings.Join(shown, "\t"))
	}
}

// flush writes what was collected.
func (t *table) flush() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}

// printable quotes s where it holds what a terminal would act on: ids and
// header values come from clients.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}

// printJSON prints v indented.
func printJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", indented.Bytes())
	return err
}
