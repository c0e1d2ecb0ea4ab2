package proxy

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/relay"
)

// drain ends the process's sessions politely. It returns early when the
// last session and request have gone, or when Abort is called.
func (p *Proxy) drain(listeners []*Listener) {
	c := p.Config().Shutdown
	p.phase.Store(draining)
	p.log.Info("draining", zap.Int("sessions", p.registry.len()),
		zap.Duration("delay", c.Delay.Std()), zap.Duration("drain", c.Drain.Std()))
	ctx, cancel := context.WithCancel(context.Background())
	var watch, refusing sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-p.abort:
			cancel()
		case <-ctx.Done():
		}
	})
	if !sleep(ctx, c.Delay.Std()) {
		return
	}
	window, over := context.WithTimeout(ctx, c.Drain.Std())
	defer over()
	for _, l := range listeners {
		refusing.Go(func() { _ = l.Drain(window) }) // what is left is cut when the tree stops
	}
	p.closePaced(window, c.Drain.Std())
	select {
	case <-p.registry.emptied():
	case <-window.Done():
		p.log.Warn("drain is over with sessions left", zap.Int("sessions", p.registry.len()))
	}
	refusing.Wait()
}

// pacedPart is the part of the drain over which closes are spread; the rest
// is for closing handshakes.
const pacedPart = 0.8

// closePaced closes all sessions, in random order, spread evenly: clients
// that all come back at once would be a stampede on the next instance.
func (p *Proxy) closePaced(ctx context.Context, window time.Duration) {
	gone := p.registry.emptied()
	sessions := p.registry.all()
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] })
	start := time.Now()
pacing:
	for i, s := range sessions {
		due := time.Duration(float64(window) * pacedPart * float64(i) / float64(len(sessions)))
		if wait := due - time.Since(start); wait > time.Millisecond {
			select {
			case <-time.After(wait):
			case <-gone: // by themselves: nothing is left to pace
				break pacing
			case <-ctx.Done():
				break pacing
			}
		}
		s.end(End{Cause: relay.Draining})
	}
	p.endAll()
}

// endAll ends all sessions, those included that handshakes under way are
// about to open.
func (p *Proxy) endAll() {
	p.ended.Store(true)
	for _, s := range p.registry.all() {
		s.end(End{Cause: relay.Draining})
	}
}

// lastWord is how long the close frames of endAll have to go out.
const lastWord = 500 * time.Millisecond

// cutAll closes the connections of the sessions that are left: the drain is
// over, and whoever stops this process has been promised that it ends.
func (p *Proxy) cutAll() {
	timer := time.NewTimer(lastWord)
	defer timer.Stop()
	select {
	case <-p.registry.emptied():
	case <-timer.C:
	}
	for _, s := range p.registry.all() {
		s.link.Cut()
	}
}

// sleep waits for d and reports false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
