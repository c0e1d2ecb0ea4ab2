//go:build race

package relay

// racing says that the race detector is on, under which sync.Pool forgets
// at random.
const racing = true
