package relay

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// crowd is sessions that share a rate, each with more to send than it may.
type crowd struct {
	flows []*flow
	due   []instant // when each is read again
	sizes func() int

	messages, bytes int
}

func newCrowd(n int, shared *Shared, own Rate, sizes func() int) *crowd {
	c := &crowd{due: make([]instant, n), sizes: sizes}
	for range n {
		f := newFlow(0, false, false, 0)
		f.limit = newLimiter(own, []*Shared{shared}, 1)
		c.flows = append(c.flows, f)
	}
	return c
}

// run lets every session send whenever it is read, from one instant to
// another, and each at its own steps of time.
func (c *crowd) run(t *testing.T, from, to instant, every time.Duration) {
	t.Helper()
	pending := make([][]byte, len(c.flows))
	for at := from; at < to; at = at.add(every) {
		for i, f := range c.flows {
			for at >= c.due[i] {
				if len(pending[i]) == 0 {
					pending[i] = frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Binary}, make([]byte, c.sizes()))
				}
				st, err := f.next(pending[i], at)
				if err != nil {
					t.Fatal(err)
				}
				if len(st.out) > 0 {
					c.messages++
					c.bytes += int(f.scan.Size())
				}
				pending[i] = pending[i][st.n:]
				c.due[i] = at.add(st.wait)
				if f.limit.onLimit != Slow {
					c.due[i] = at.add(every) // or it would send without end
				}
			}
		}
	}
}

func fixed(n int) func() int { return func() int { return n } }

// Over ten seconds what fifty sessions may send together is exact, whatever
// the route does with who sends more.
func TestSharedRateIsExact(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const span = 10 * time.Second
	for _, tt := range []struct {
		name  string
		rate  Rate
		sizes func() int
	}{
		{"messages", Rate{Messages: 100, Burst: time.Second}, fixed(10)},
		{"few messages", Rate{Messages: 20, Burst: 100 * time.Millisecond}, fixed(10)},
		{"bytes", Rate{Bytes: 1 << 20, Burst: time.Second}, fixed(16 << 10)},
		{"bytes of many sizes", Rate{Bytes: 1 << 20, Burst: time.Second}, func() int { return rnd.IntN(8 << 10) }},
		{"the tighter of two", Rate{Messages: 1000, Bytes: 10000, Burst: time.Second}, fixed(100)},
	} {
		for name, on := range map[string]OnLimit{"slow": Slow, "drop": DropMessage} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				c := newCrowd(50, sharedAt(tt.rate, 1), Rate{OnLimit: on}, tt.sizes)
				c.run(t, 1, instant(1).add(span), time.Millisecond)
				seconds := (span + tt.rate.Burst).Seconds()
				if want := tt.rate.Messages * seconds; tt.rate.Messages > 0 && tt.rate.Messages < 1000 {
					within(t, "messages", float64(c.messages), want)
				}
				if want := tt.rate.Bytes * seconds; want > 0 {
					within(t, "bytes", float64(c.bytes), want)
				}
			})
		}
	}
}

func within(t *testing.T, what string, got, want float64) {
	t.Helper()
	if off := (got - want) / want; off > 0.05 || off < -0.05 {
		t.Errorf("%s: %.0f, want %.0f: %+.1f%%", what, got, want, 100*off)
	}
}

// sharedAt is NewShared at an instant of the test's.
func sharedAt(r Rate, t instant) *Shared {
	return &Shared{messages: newBucket(r.Messages, r.Burst, t), bytes: newBucket(r.Bytes, r.Burst, t)}
}

// A session's first message waits like any other: to open a session for each
// message is no way around the rate.
func TestSharedRateHoldsNewSessions(t *testing.T) {
	shared := sharedAt(Rate{Messages: 10, Burst: time.Second}, 1)
	message := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte("hello"))
	through := 0
	for i := range 100 {
		f := newFlow(0, false, false, 0)
		f.limit = newLimiter(Rate{}, []*Shared{shared}, 1)
		st, err := f.next(message, instant(1).add(time.Duration(i)*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(st.out) > 0:
			through++
		case st.wait <= 0 || st.n != 0:
			t.Fatalf("session %d neither passed nor waited", i)
		}
	}
	if through != 10 {
		t.Errorf("%d first messages passed at once, want the burst of 10", through)
	}
}

// A header that announces much costs the others nothing.
func TestSharedRateTakesWhatHasCome(t *testing.T) {
	shared := sharedAt(Rate{Bytes: 1000, Burst: time.Second}, 1)
	big := frame.AppendHeader(nil, frame.Header{Fin: true, Opcode: frame.Binary, Length: 1 << 40})
	one, other := newFlow(0, false, false, 0), newFlow(0, false, false, 0)
	for _, f := range []*flow{one, other} {
		f.limit = newLimiter(Rate{}, []*Shared{shared}, 1)
	}
	if _, err := one.next(append(big, 'x'), 1); err != nil {
		t.Fatal(err)
	}
	st, err := other.next(frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte("hello")), 2)
	if err != nil || st.wait > 0 || len(st.out) == 0 {
		t.Errorf("the other session got %+v, %v", st, err)
	}
}

// A message that never ends is held to the rate of bytes, too, the session's
// own as well as one that is shared.
func TestRateInsideMessage(t *testing.T) {
	rate := Rate{Bytes: 1000, Burst: time.Second}
	for name, limit := range map[string]*limiter{
		"own":    newLimiter(rate, nil, 1),
		"shared": newLimiter(Rate{}, []*Shared{sharedAt(rate, 1)}, 1),
	} {
		for mode, f := range map[string]*flow{"relay": newFlow(0, false, false, 0), "whole": newFlow(1<<20, false, false, 0), "assemble": newFlow(0, true, false, 1<<20)} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				f.limit = limit
				at, last := instant(1), instant(1)
				in := frame.AppendHeader(nil, frame.Header{Opcode: frame.Binary, Length: 100})
				for range 600 {
					for b := append(in, make([]byte, 100)...); len(b) > 0; {
						st, err := f.next(b, at)
						if err != nil {
							t.Fatal(err)
						}
						b, at = b[st.n:], at.add(st.wait)
						if st.n == 0 && st.wait == 0 {
							t.Fatal("stands still")
						}
					}
					in = frame.AppendHeader(in[:0], frame.Header{Opcode: frame.Continuation, Length: 100})
				}
				if took := time.Duration(at - last); took < 58*time.Second || took > 60*time.Second {
					t.Errorf("60000 bytes of one message took %s, want 59s", took)
				}
			})
			limit = newLimiter(rate, nil, 1)
			if name == "shared" {
				limit = newLimiter(Rate{}, []*Shared{sharedAt(rate, 1)}, 1)
			}
		}
	}
}

func TestSharedRateClose(t *testing.T) {
	shared := sharedAt(Rate{Messages: 10, Burst: time.Second}, 1)
	message := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte("hello"))
	for i := range 11 {
		f := newFlow(0, false, false, 0)
		f.limit = newLimiter(Rate{OnLimit: CloseSession}, []*Shared{shared}, 1)
		if _, err := f.next(message, 1); (err == errOverLimit) != (i == 10) {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

// What one rate has admitted and another refuses counts under neither.
func TestSharedRatesAddUp(t *testing.T) {
	wide, narrow := sharedAt(Rate{Messages: 10, Burst: time.Second}, 1), sharedAt(Rate{Messages: 2, Burst: time.Second}, 1)
	f := newFlow(0, false, false, 0)
	f.limit = newLimiter(Rate{OnLimit: DropMessage}, []*Shared{wide, narrow}, 1)
	message := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte("hello"))
	for range 9 {
		if _, err := f.next(message, 1); err != nil {
			t.Fatal(err)
		}
	}
	if wide.messages.tokens != 8 || narrow.messages.tokens != 0 {
		t.Errorf("%v and %v tokens are left, want 8 and 0", wide.messages.tokens, narrow.messages.tokens)
	}
}

// A reload that changes the rate forgives no debt, and a limit that was not
// there begins with its burst.
func TestSharedSet(t *testing.T) {
	s := NewShared(Rate{Messages: 10, Burst: time.Second})
	s.messages.take(now(), 50)
	s.Set(Rate{Messages: 1, Bytes: 100, Burst: time.Second})
	if s.messages.tokens > -39 {
		t.Errorf("%v tokens, want about -40", s.messages.tokens)
	}
	if s.bytes.tokens != 100 {
		t.Errorf("%v bytes, want 100", s.bytes.tokens)
	}
}

// Under a shared rate that is not reached a message costs no memory.
func TestSharedRateDoesNotAllocate(t *testing.T) {
	f := newFlow(0, false, true, 0)
	f.limit = newLimiter(Rate{}, []*Shared{sharedAt(Rate{Messages: 1e9, Bytes: 1e12, Burst: time.Second}, 1)}, 1)
	message := frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text, Masked: true}, make([]byte, 100))
	if got := testing.AllocsPerRun(1000, func() {
		if st, err := f.next(message, 1); err != nil || len(st.out) == 0 {
			t.Fatal(st, err)
		}
		f.settle(1)
	}); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
