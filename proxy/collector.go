package proxy

import (
	"context"
	"runtime/debug"
	"time"
)

// collector gives memory back after a wave of handshakes. An idle session
// makes no garbage, so without it a process that thousands of clients have
// come back to keeps what their handshakes needed, and their deep stacks,
// for minutes.
type collector struct{ p *Proxy }

// waveSize is how many sessions make a wave.
const waveSize = 256

// String names the service.
func (c *collector) String() string { return "collector" }

// Serve looks once a second until ctx ends.
func (c *collector) Serve(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var collected, last uint64
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		opened := c.p.metrics.openedTotal()
		// A wave is over when a second has brought a tenth of it at most.
		if wave := opened - collected; wave >= waveSize && opened-last <= wave/10 {
			debug.FreeOSMemory()
			collected = opened
		}
		last = opened
	}
}
