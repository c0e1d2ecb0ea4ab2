package relay

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// A rate holds where messages are looked at beside the loop.
func TestRateOfMessagesLookedAt(t *testing.T) {
	onEachEngine(t, "rate", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(func(p *Policy) {
			p.Assemble, p.MessageSize = true, 1<<20
			p.Rate = Rate{Messages: 20, Burst: 50 * time.Millisecond}
		})
		s.Inspector = inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		began := time.Now()
		for range 11 {
			c.say(c.text("x"))
		}
		for range 11 {
			u.expect(text("x"))
		}
		if took := time.Since(began); took < 450*time.Millisecond {
			t.Errorf("11 messages took %v at 20 a second", took)
		}
	})
}

// A session is not over while a handler looks at one of its messages.
func TestFinishJoinsHandlers(t *testing.T) {
	onEachEngine(t, "finish", func(t *testing.T, s Session, p pair) {
		s.Policy = newPolicy(assembling)
		if s.Inline {
			t.Skip("it would hold its loop up")
		}
		came, release := make(chan struct{}), make(chan struct{})
		var returned atomic.Bool
		s.Inspector = inspector(func(Side, frame.Opcode, []byte) Result {
			close(came)
			<-release
			returned.Store(true)
			return Result{}
		})
		r := newRig(t, s, p, nil)
		u, c := r.attach(), r.client
		c.say(c.text("look"))
		soon(t, came, "the message is looked at")
		r.link.End(End{Cause: Kicked})
		c.expect(closed(1008, ""))
		c.say(c.closing(1008, ""))
		u.expect(closed(1001, ""))
		u.Close()
		select {
		case <-r.ended:
		case <-time.After(100 * time.Millisecond): // it would be over by now
		}
		if done := isClosed(r.ended); done && !returned.Load() {
			t.Error("the session is over while its handler is called")
		}
		close(release)
		r.over(Kicked)
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A message that can't be looked at without a panic ends its session alone.
func TestCrewSurvivesPanic(t *testing.T) {
	ls := startLoops(t, 1)
	r := newRig(t, Session{Policy: newPolicy(assembling), Loops: ls}, tcpPair, nil)
	r.attach()
	j := &job{link: r.link, from: Client}
	j.frames.append([]byte{0x81, 0x85, 0, 0, 0, 0, 'c', 'u'}) // no scanner lets that through
	ls.crew.add(j)
	waitFor(t, j.done.Load)
	if j.result.failed == nil {
		t.Error("nobody is told of the panic")
	}
}

// What an upstream has said is passed on, though that upstream is lost while
// a handler looks at it.
func TestLossWhileHandlerLooks(t *testing.T) {
	onEachEngine(t, "loss", func(t *testing.T, s Session, p pair) {
		if s.Inline || s.Loops == nil {
			t.Skip("they can't find the upstream lost meanwhile")
		}
		s.Policy = newPolicy(func(p *Policy) {
			holding(p)
			assembling(p)
			p.Timeouts.Write = 50 * time.Millisecond
		})
		came, release := make(chan struct{}), make(chan struct{})
		s.Inspector = inspector(func(from Side, _ frame.Opcode, _ []byte) Result {
			if from == Upstream {
				close(came)
				<-release
			}
			return Result{}
		})
		r := newRig(t, s, p, nil)
		own, far := tightPair()
		defer far.Close()
		r.next <- own
		<-r.joined
		c := r.client
		far.Write(appendFrame(nil, frame.Text, []byte("look"), false, 0))
		soon(t, came, "the message is looked at")
		c.say(c.frame(true, frame.Binary, strings.Repeat("x", 40<<10))) // nobody takes it
		select {
		case <-r.lost:
			t.Error("the upstream is lost while its message is looked at")
		case <-time.After(300 * time.Millisecond):
		}
		close(release)
		c.expect(text("look"))
		if l := r.loss(); l.Cause != LossStalled {
			t.Errorf("lost by %v, want %v", l.Cause, LossStalled)
		}
	})
}

// What an upstream has taken is never sent again, though a handler's answer
// to it stands between what was held and what was looked at meanwhile.
func TestLossBehindAnswer(t *testing.T) {
	const held, size, answer = 100, 1000, 64 << 10
	came, release := make(chan struct{}), make(chan struct{})
	i := inspector(func(from Side, _ frame.Opcode, data []byte) Result {
		if from == Upstream {
			return Result{Verdict: Reply, Type: frame.Text, Data: bytes.Repeat([]byte("a"), answer)}
		}
		if string(data) == "look" {
			close(came)
			<-release
		}
		return Result{}
	})
	r := newRig(t, Session{Loops: startLoops(t, 1), Inspector: i, Policy: newPolicy(func(p *Policy) { holding(p); assembling(p) })}, tcpPair, nil)
	c := r.client
	message := func(n int) string { return fmt.Sprintf("%03d", n) + strings.Repeat("h", size) }
	for n := range held {
		c.say(c.text(message(n)))
	}
	c.say(c.text("look"))
	soon(t, came, "the last message is looked at")
	own, far := tightPair()
	defer far.Close()
	r.next <- own
	<-r.joined
	far.Write(appendFrame(nil, frame.Text, []byte("ask"), false, 0))
	waitFor(t, func() bool { return r.link.Weight() > 2*held*size+answer/2 })
	close(release)
	time.Sleep(50 * time.Millisecond) // what becomes of that message meanwhile is what is tested
	if _, err := io.CopyN(io.Discard, far, int64(held/2*len(c.text(message(0))))); err != nil {
		t.Fatal(err)
	}
	far.Close()
	r.loss()
	b := r.attach()
	h, _ := b.next()
	n, _ := strconv.Atoi(h.payload[:3])
	if n < held/2 {
		t.Fatalf("the next upstream got message %d, want none of the %d that the first has read", n, held/2)
	}
	for n++; n < held; n++ {
		b.expect(text(message(n)))
	}
	b.expect(text("look"))
}

// busyInspector is one whose other call is under way, and returns when it is
// told to.
type busyInspector struct{ returns chan struct{} }

func (b busyInspector) Inspect(Side, frame.Opcode, []byte) Result {
	<-b.returns
	return Result{}
}

func (b busyInspector) TryInspect(_ Side, _ frame.Opcode, data []byte) (Result, bool) {
	return Result{}, string(data) != "wait"
}

// A loop does not wait for a handler that another callback keeps busy.
func TestLoopDoesNotWaitForHandler(t *testing.T) {
	ls := startLoops(t, 1)
	b := busyInspector{make(chan struct{})}
	s := Session{Policy: newPolicy(assembling), Loops: ls, Inline: true, Inspector: b}
	busy, free := newRig(t, s, tcpPair, nil), newRig(t, s, tcpPair, nil)
	up, other := busy.attach(), free.attach()
	busy.client.say(busy.client.text("first"), busy.client.text("wait"), busy.client.text("last"))
	up.expect(text("first"))
	up.say(up.text("meanwhile"))
	busy.client.expect(text("meanwhile"))
	free.client.say(free.client.text("a neighbour's"))
	other.expect(text("a neighbour's"))
	close(b.returns)
	up.expect(text("wait"), text("last"))
}
