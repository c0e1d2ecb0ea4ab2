package relay

import "time"

// tick is how coarse a wheel is: timers come up to that much late.
const tick = 10 * time.Millisecond

// spokes is the number of slots of each of a wheel's two rings.
const spokes = 256

// timer is a Link's one entry on its loop's wheel.
type timer struct {
	link       *Link
	at         int64 // in ticks
	next, prev *timer
}

// wheel holds the timers of one loop: a ring of single ticks, and one whose
// slots each hold as many ticks as the first has. What lies beyond comes up
// early and is set again. Setting and stopping a timer costs the same
// however many there are.
type wheel struct {
	now           int64 // the last tick that has come up
	count         int
	near, distant [spokes]timer // heads of rings
}

func (w *wheel) init(t instant) {
	w.now = int64(t) / int64(tick)
	for i := range spokes {
		for _, head := range []*timer{&w.near[i], &w.distant[i]} {
			head.next, head.prev = head, head
		}
	}
}

// set arms a timer for an instant, or moves it there.
func (w *wheel) set(t *timer, at instant) {
	w.stop(t)
	t.at = max(w.now+1, (int64(at)+int64(tick)-1)/int64(tick))
	w.count++
	w.put(t)
}

func (w *wheel) put(t *timer) {
	head := &w.near[t.at%spokes]
	if block, current := t.at/spokes, w.now/spokes; block != current {
		head = &w.distant[min(block, current+spokes-1)%spokes]
	}
	t.next, t.prev = head, head.prev
	t.prev.next, head.prev = t, t
}

// stop disarms a timer, if it is armed.
func (w *wheel) stop(t *timer) {
	if t.next != nil {
		w.count--
		t.unlink()
	}
}

func (t *timer) unlink() {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
}

func (t *timer) armed() bool { return t.next != nil }

// due returns the instant at which a timer comes up.
func (t *timer) due() instant { return instant(t.at * int64(tick)) }

// advance turns the wheel to t and calls fire for each timer that has come
// up; it is disarmed before.
func (w *wheel) advance(t instant, fire func(*Link)) {
	to := int64(t) / int64(tick)
	for w.now < to && w.count > 0 {
		w.now++
		if w.now%spokes == 0 {
			w.unroll(&w.distant[w.now/spokes%spokes])
		}
		// When the last timer comes up the wheel may be turned on to where
		// time stands; what is set then belongs to a later turn.
		at := w.now
		for head := &w.near[at%spokes]; w.now == at && head.next != head; {
			first := head.next
			w.stop(first)
			fire(first.link)
		}
	}
	w.now = max(w.now, to)
}

// unroll moves the timers of a distant slot to where they come up.
func (w *wheel) unroll(head *timer) {
	for first := head.next; first != head; {
		next := first.next
		first.unlink()
		w.put(first)
		first = next
	}
}

// next returns when the wheel is to be turned again; 0 is never.
func (w *wheel) next() instant {
	if w.count == 0 {
		return 0
	}
	block := w.now / spokes
	for at := w.now + 1; at/spokes == block; at++ {
		if head := &w.near[at%spokes]; head.next != head {
			return instant(at * int64(tick))
		}
	}
	for b := block + 1; b < block+spokes; b++ {
		if head := &w.distant[b%spokes]; head.next != head {
			return instant(b * spokes * int64(tick))
		}
	}
	return instant((block + spokes) * spokes * int64(tick))
}
