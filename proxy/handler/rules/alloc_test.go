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

// What a message is decoded to is bounded, not only what an expression builds
// of it: this one of 16 MiB is some 16 KiB on a wire with compression.
func TestTooComplexIsNotDecoded(t *testing.T) {
	p := mustCompile(t, when(`json?.op == "ping"`, drop))
	s := &subject{session: fakeSession{}}
	m := text("[" + strings.Repeat("0,", 8<<20-2) + "0]")
	if got := testing.AllocsPerRun(2, func() { p.decide(s, m) }); got > 100 {
		t.Errorf("allocations: got %v, want a few", got)
	}
}
