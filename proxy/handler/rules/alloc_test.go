//go:build !race

package rules

import (
	"strings"
	"testing"
)

// The race detector makes sync.Pool forget on purpose, so this runs without.
func TestNoAllocationWhereNothingMatches(t *testing.T) {
	p := mustCompile(t,
		when(`type == "binary"`, drop),
		when(`size > 4096`, drop),
		when(`from == "upstream" && json?.op == "ping"`, drop),
		when(`attempt > 5 && session != "" && headers["Origin"] == "x"`, drop),
	)
	s := &subject{session: fakeSession{}}
	m := text(strings.Repeat("x", 1000))
	if got := testing.AllocsPerRun(200, func() { p.decide(s, m) }); got > 0 {
		t.Errorf("allocations per message: got %v, want 0", got)
	}
}
