package relay

import "time"

var epoch = time.Now()

// instant is a monotonic time in nanoseconds; 0 is never.
type instant int64

// now returns the current instant.
func now() instant { return instant(time.Since(epoch)) + 1 }

// time returns the instant as a time for deadlines.
func (t instant) time() time.Time { return epoch.Add(time.Duration(t - 1)) }

func (t instant) add(d time.Duration) instant { return t + instant(d) }

// earliest returns the earlier of two instants, where 0 is never.
func earliest(a, b instant) instant {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
