package bench

import "time"

// maxNap is how long pace sleeps without asking whether it is still wanted.
const maxNap = 50 * time.Millisecond

// pace calls post for every message that is due, at fixed times from start
// on: the n-th at n/rate seconds, however late the ones before were. It
// returns when post, or wanted before that time, says no. The lag is given
// for messages that were waited for: it is how late this machine woke up,
// not the server.
func pace(epoch, start time.Time, rate float64, post func(n int, due int64) bool, wanted func(due int64) bool, lag func(ns int64)) {
	defer exactSleep()()
	offset := int64(start.Sub(epoch))
	for n := 0; ; n++ {
		due := offset + int64(float64(n)*1e9/rate)
		waited := false
		wait := due - int64(time.Since(epoch))
		for ; wait > 0; wait = due - int64(time.Since(epoch)) {
			if !wanted(due) {
				return
			}
			waited = true
			sleep(min(time.Duration(wait), maxNap))
		}
		if waited {
			lag(-wait)
		}
		if !post(n, due) {
			return
		}
	}
}
