package e2e

import (
	"regexp"
	"slices"
	"strings"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// The few rows that stent changes, each by a line of the contract.

var (
	lost     = regexp.MustCompile(`^close 1006$`)
	restart  = regexp.MustCompile(`^close 1012( .*)?$`)
	vanished = regexp.MustCompile(`^server close 1006$`)
	away     = regexp.MustCompile(`^server close 1001( .*)?$`)
	agreed   = regexp.MustCompile(`^sec-websocket-extensions: .*$`)
	offered  = regexp.MustCompile(`^text extensions .*$`)
)

// expect returns what c's row should be through w when it is row directly.
func (w way) expect(c play.Case, row []string) []string {
	row = slices.Clone(row)
	if !w.stent() {
		return row
	}
	for i, line := range row {
		switch {
		case c.Name == aborts+"server" && lost.MatchString(line):
			row[i] = "close 1012" // upstream lost, continuity off
		case c.Name == aborts+"client" && vanished.MatchString(line):
			row[i] = "server close 1001" // client vanishes
		case c.Deflate && w.messages() && agreed.MatchString(line):
			row[i] = "sec-websocket-extensions:" // each leg has its own
		case c.Deflate && w.messages() && offered.MatchString(line):
			row[i] = "text extensions"
		}
	}
	return row
}

// normal returns c's row through w without what the contract leaves open: the
// words of stent's own closes, and the parameters of stent's own compression.
func (w way) normal(c play.Case, row []string) []string {
	row = slices.Clone(row)
	if !w.stent() {
		return row
	}
	for i, line := range row {
		switch {
		case c.Name == aborts+"server" && restart.MatchString(line):
			row[i] = "close 1012"
		case c.Name == aborts+"client" && away.MatchString(line):
			row[i] = "server close 1001"
		case c.Deflate && w.messages() && agreed.MatchString(line):
			// Compression is off in one mode and must be agreed in the other.
			if strings.Contains(line, "permessage-deflate") == (w == terminate) {
				row[i] = "sec-websocket-extensions:"
			}
		case c.Deflate && w.messages() && offered.MatchString(line+" "):
			if strings.Contains(line, "permessage-deflate") == (w == terminate) {
				row[i] = "text extensions"
			}
		}
	}
	return row
}
