package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// Stent changes few rows, each by a line of the contract. Where it does, both
// the direct row and the row through stent are brought to the same words:
// expect says what must come out, normal drops what the contract leaves open.

var (
	closed   = regexp.MustCompile(`^close (\d+)`)
	saw      = regexp.MustCompile(`^server close (\d+)`)
	decided  = regexp.MustCompile(`^server closes ?(\d*)`)
	answered = regexp.MustCompile(`^sec-websocket-extensions: `)
	offered  = regexp.MustCompile(`^text extensions( |$)`)
)

// without1012 are clients whose library takes 1012 for no code at all and
// says 1002 instead.
var without1012 = []string{"node-faye"}

// expect returns what c's row should be through w when it is row directly.
func (w way) expect(c play.Case, row []string) []string {
	row = slices.Clone(row)
	if !w.stent() {
		return row
	}
	serverCloses := closer(row)
	for i, line := range row {
		switch {
		case c.Name == aborts+"server" && closed.MatchString(line):
			row[i] = "close 1012" // upstream lost, continuity off
		case c.Name == aborts+"client" && saw.MatchString(line):
			row[i] = "server close 1001" // client vanishes
		case serverCloses != "" && saw.MatchString(line):
			row[i] = "server close " + serverCloses // echo
		case w.messages() && serverCloses == "" && closed.MatchString(line):
			row[i] = fmt.Sprintf("close %d", clientCode(c)) // echo
		case w.messages():
			row[i] = w.ownWords(serverCloses, line)
		}
	}
	return row
}

// normal returns c's row through w without what the contract leaves open.
func (w way) normal(client string, c play.Case, row []string) []string {
	row = slices.Clone(row)
	if !w.stent() {
		return row
	}
	serverCloses := closer(row)
	for i, line := range row {
		switch {
		case c.Name == aborts+"server" && closed.MatchString(line):
			row[i] = closed.FindString(line)
			if row[i] == "close 1002" && slices.Contains(without1012, client) {
				row[i] = "close 1012"
			}
		case (c.Name == aborts+"client" || serverCloses != "") && saw.MatchString(line):
			row[i] = saw.FindString(line)
		case w.messages():
			if answered.MatchString(line) || offered.MatchString(line) {
				// Off in one mode and agreed in the other, leg by leg.
				if strings.Contains(line, "permessage-deflate") != (w == terminate) {
					continue
				}
			}
			row[i] = w.ownWords(serverCloses, line)
		}
	}
	return row
}

// ownWords drops from a line of message mode what each leg has of its own:
// the parameters of its compression, and the reason in the echo of a client's
// close.
func (w way) ownWords(serverCloses, line string) string {
	switch {
	case answered.MatchString(line):
		return "sec-websocket-extensions: of this leg"
	case offered.MatchString(line):
		return "text extensions of this leg"
	case serverCloses == "" && closed.MatchString(line):
		return closed.FindString(line)
	}
	return line
}

// clientCode returns the code with which the client closes in c.
func clientCode(c play.Case) int {
	for _, step := range c.Steps {
		if step.Op == "close" && step.Code != 0 {
			return step.Code
		}
	}
	return 1005
}

// closer returns the code with which the server began the closing handshake
// in row, 1005 for none, or "" when it did not.
func closer(row []string) string {
	for _, line := range row {
		if m := decided.FindStringSubmatch(line); m != nil {
			if m[1] == "" {
				return "1005"
			}
			return m[1]
		}
	}
	return ""
}
