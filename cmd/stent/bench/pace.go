package bench

import "time"

// pace calls post for every message that is due, at fixed times from start
// on: the n-th at n/rate seconds, however late the ones before were. It
// returns when post does not want more. The lag is given for messages that
// were waited for: it is how late this machine woke up, not the server.
func pace(epoch, start time.Time, rate float64, post func(n int, due int64) bool, lag func(ns int64)) {
	defer exactSleep()()
	offset := int64(start.Sub(epoch))
	for n := 0; ; n++ {
		due := offset + int64(float64(n)*1e9/rate)
		waited := false
		for {
			wait := due - int64(time.Since(epoch))
			if wait <= 0 {
				if waited {
					lag(-wait)
				}
				break
			}
			waited = true
			sleep(min(time.Duration(wait), maxNap))
			if wait > int64(maxNap) && !post(-1, 0) {
				return
			}
		}
		if !post(n, due) {
			return
		}
	}
}

// maxNap is how long pace sleeps without asking whether it is still wanted.
const maxNap = 50 * time.Millisecond
