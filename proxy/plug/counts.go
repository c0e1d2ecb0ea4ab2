package plug

import "sync"

// Counts holds the places that sessions have taken under the limit plugs. It
// belongs to the process, not to a configuration. The zero value is empty; a
// key with no sessions takes no memory.
type Counts struct {
	mu    sync.Mutex
	taken map[countName]int
}

// countName names one counter: of a plug and of a key under it.
type countName struct {
	pipeline, by string
	nth          int
	key          string
}

// take takes a place for a session unless most are taken already.
func (c *Counts) take(name countName, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.taken[name]
	if n >= most {
		return false
	}
	if c.taken == nil {
		c.taken = make(map[countName]int)
	}
	c.taken[name] = n + 1
	return true
}

// release gives a place back.
func (c *Counts) release(name countName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[name]--; c.taken[name] <= 0 {
		delete(c.taken, name)
	}
}
