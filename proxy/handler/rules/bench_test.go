package rules

import (
	"strings"
	"testing"
)

func BenchmarkDecide(b *testing.B) {
	short := text(strings.Repeat("x", 64))
	object := text(`{"op":"message","room":"lobby","body":"` + strings.Repeat("x", 64) + `","n":12345}`)
	for _, bb := range []struct {
		name, condition string
		message         message
	}{
		{"size", `size > 4096`, short},
		{"type", `type == "binary"`, short},
		{"side", `from == "upstream" && json?.op == "ping"`, object},
		{"text", `text contains "secret"`, short},
		{"json", `from == "client" && json?.op == "ping"`, object},
		{"header", `headers["Origin"] == "https://example.org"`, short},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := mustCompile(b, when(bb.condition, drop))
			s := &subject{session: fakeSession{}}
			b.ReportAllocs()
			for b.Loop() {
				p.decide(s, bb.message)
			}
		})
	}
}
