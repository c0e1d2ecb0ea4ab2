package bench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// exactSleep gives the caller a thread whose sleeps end in time, until the
// returned function is called. On an idle process Go's own timers are late by
// up to a millisecond, the unit of epoll_wait, and that would be charged to
// the target.
func exactSleep() (end func()) {
	runtime.LockOSThread()
	const slack = 1 // nanosecond; the default is 50 µs
	unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0)
	return func() {
		unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
		runtime.UnlockOSThread()
	}
}

// sleep returns after d, or earlier.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&ts, nil)
}
