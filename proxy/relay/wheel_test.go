package relay

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Every timer comes up once, in its tick or the one after it, wherever the
// wheel stands and however far it turns at a time.
func TestWheel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var w wheel
	at := instant(12345678)
	w.init(at)
	due := make(map[*Link]instant)
	timers := make(map[*Link]*timer)
	set := func(l *Link, when instant) {
		if timers[l] == nil {
			timers[l] = &timer{link: l}
		}
		w.set(timers[l], when)
		due[l] = when
	}
	for range 500 {
		for range rnd.IntN(5) {
			set(new(Link), at.add(time.Duration(rnd.Int64N(int64(20*time.Minute)))))
		}
		for l := range due {
			switch rnd.IntN(20) {
			case 0:
				set(l, at.add(time.Duration(rnd.Int64N(int64(time.Minute)))))
			case 1:
				w.stop(timers[l])
				delete(due, l)
			}
			break
		}
		next := w.next()
		if (next == 0) != (len(due) == 0) {
			t.Fatalf("next is %d with %d timers", next, len(due))
		}
		step := time.Duration(rnd.Int64N(int64(time.Second) << rnd.IntN(9)))
		to := at.add(step)
		w.advance(to, func(l *Link) {
			when, ok := due[l]
			if !ok {
				t.Fatal("a timer came up that was not set")
			}
			if when > to {
				if when < to.add(distance) {
					t.Fatalf("a timer came up %s early", time.Duration(when-to))
				}
				set(l, when) // beyond the wheel
				return
			}
			delete(due, l)
		})
		at = to
		for _, when := range due {
			if when.add(tick) <= at {
				t.Fatalf("a timer is %s late", time.Duration(at-when))
			}
			if next != 0 && next > when.add(tick) && next < when.add(time.Hour) && when < at {
				t.Fatalf("the wheel would have slept beyond a timer")
			}
		}
		if len(due) != w.count {
			t.Fatalf("the wheel counts %d timers, want %d", w.count, len(due))
		}
	}
}

// distance is how far ahead a wheel's timers are exact.
const distance = (spokes - 1) * spokes * tick

// The next tick that something is due in is never passed over.
func TestWheelNext(t *testing.T) {
	for _, d := range []time.Duration{0, tick, 3 * tick, 255 * tick, 256 * tick, 257 * tick, 10 * time.Second, 10 * time.Minute, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			var w wheel
			at := instant(77 * tick)
			w.init(at)
			tm := &timer{link: new(Link)}
			due := at.add(d)
			w.set(tm, due)
			for range 100 {
				next := w.next()
				if next == 0 {
					t.Fatal("the wheel sleeps for ever")
				}
				came := false
				w.advance(next, func(*Link) { came = true })
				if came && next >= due {
					if next > due.add(2*tick) {
						t.Errorf("it came up %s late", time.Duration(next-due))
					}
					return
				}
				if came {
					w.set(tm, due)
				}
			}
			t.Error("it did not come up in 100 turns")
		})
	}
}

// A timer that is set while the wheel turns comes up when it is due, and the
// wheel comes to its end.
func TestWheelTurnsOnce(t *testing.T) {
	set, err := newEpoll()
	if err != nil {
		t.Skip(err)
	}
	defer set.close()
	p := &Loop{}
	p.begin(set)
	const block = spokes * int64(tick)
	start := instant((int64(now())/block + 2) * block)
	p.wheel.init(start - instant(3*tick))
	p.now = start - instant(3*tick)
	l := new(Link)
	tm := &timer{link: l}
	first := start - instant(2*tick)
	p.arm(tm, first)
	p.now = start + instant(2*tick) // it is late
	fired := 0
	p.wheel.advance(p.now, func(*Link) {
		if fired++; fired > 3 {
			t.Fatal("the timer comes up without end")
		}
		p.arm(tm, first.add(spokes*tick))
	})
	if fired != 1 {
		t.Errorf("the timer came up %d times, want once", fired)
	}
}
