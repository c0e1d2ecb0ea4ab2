package supervisor

import "time"

// Intensity is OTP's restart intensity, kept by each session for itself: at
// most Max restarts within any Window. It allocates at the first restart
// only, and never holds more than Max times. It is not safe for concurrent
// use, as a worker's Serve calls never overlap.
type Intensity struct {
	// Max is how many restarts are allowed within Window; 0 allows none.
	Max    int
	Window time.Duration

	recent []time.Time // oldest first
}

// Allow records a restart at now and reports whether it is within the
// intensity. A refused restart is not recorded. The bounds of the window
// belong to it, as in OTP: a restart exactly Window ago still counts.
func (i *Intensity) Allow(now time.Time) bool {
	i.forget(now)
	if len(i.recent) >= i.Max {
		return false
	}
	i.recent = append(i.recent, now)
	return true
}

// Recent returns the number of restarts within Window before now.
func (i *Intensity) Recent(now time.Time) int {
	i.forget(now)
	return len(i.recent)
}

// forget drops the restarts that have left the window, in place.
func (i *Intensity) forget(now time.Time) {
	expired := 0
	for expired < len(i.recent) && now.Sub(i.recent[expired]) > i.Window {
		expired++
	}
	if expired > 0 {
		i.recent = i.recent[:copy(i.recent, i.recent[expired:])]
	}
}
