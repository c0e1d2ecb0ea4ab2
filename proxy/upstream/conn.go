package upstream

import (
	"net"
	"net/http"
	"sync/atomic"
)

// Conn is an upstream connection after its 101. It holds one session's place
// on its target until Close or Release.
type Conn struct {
	net.Conn
	Target *Target
	// Response is the 101 with its headers and no body. The holder may set it
	// to nil when it has read what it needs.
	Response *http.Response
	// Early is what arrived with the 101: the upstream's first frames.
	Early []byte

	released atomic.Bool
}

// Close closes the connection, unless its holder has taken it out, and
// releases the place on the target.
func (c *Conn) Close() error {
	c.Release()
	if c.Conn == nil {
		return nil
	}
	return c.Conn.Close()
}

// Release gives the place on the target back, once, however often it is
// called. It is for a holder that has taken the descriptor out of Conn.
func (c *Conn) Release() {
	if c.released.CompareAndSwap(false, true) {
		c.Target.release()
	}
}
