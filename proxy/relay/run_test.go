package relay

import (
	"testing"

	"github.com/stentproxy/stent/proxy/frame"
)

// Messages that came in one segment reach the other side in order, whatever
// becomes of those between them, and a push stays behind those that were
// looked at before it was made.
func TestMessagesOfOneSegment(t *testing.T) {
	onEachEngine(t, "segment", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(func(p *Policy) { p.Assemble = true; p.MessageSize = 1 << 20 })
		var r *rig
		s.Inspector = inspector(func(from Side, _ frame.Opcode, data []byte) Result {
			switch string(data) {
			case "push":
				if from == Client && r.link.Engine() == "loop" {
					r.link.Push(Upstream, frame.Text, []byte("pushed"))
				}
			case "drop":
				return Result{Verdict: Drop}
			case "other":
				return Result{Verdict: Forward, Type: frame.Text, Data: []byte("another")}
			case "ask":
				return Result{Verdict: Reply, Type: frame.Text, Data: []byte("answer")}
			case "stop":
				return Result{Verdict: Stop, Code: 4000, Reason: "enough"}
			}
			return Result{}
		})
		r = newRig(t, s, p, nil)
		up := r.attach()
		c := r.client
		split := c.text("over two segments")
		c.say(c.text("a"), c.text("b"), c.text("drop"), c.text("c"), c.text("other"), c.text("d"),
			c.frame(true, frame.Ping, "?"), c.text("ask"), c.text("e"), split[:7])
		up.expect(text("a"), text("b"), text("c"), text("another"), text("d"), text("e"))
		c.expect(heard{frame.Pong, "?"}, text("answer"))
		c.say(split[7:], c.text("f"), c.text("g"))
		up.expect(text("over two segments"), text("f"), text("g"))
		if r.link.Engine() == "loop" {
			c.say(c.text("h"), c.text("push"), c.text("i"))
			up.expect(text("h"))
			got := map[heard]bool{}
			for range 3 {
				h, _ := up.next()
				got[h] = true
			}
			for _, want := range []heard{text("push"), text("pushed"), text("i")} {
				if !got[want] {
					t.Errorf("the upstream did not get %v", want)
				}
			}
		}
		up.say(up.text("A"), up.text("B"), up.text("drop"), up.text("C"), up.text("stop"), up.text("never"))
		c.expect(text("A"), text("B"), text("C"), closed(4000, "enough"))
		if got, want := r.link.Counters[Upstream].Messages(), uint64(5); got != want {
			t.Errorf("%d messages of the upstream counted, want %d", got, want)
		}
		c.say(c.closing(4000, ""))
		up.Close()
		r.over(HandlerStopped)
	})
}
