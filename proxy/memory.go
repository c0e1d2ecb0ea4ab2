package proxy

import (
	"cmp"
	"context"
	"runtime"
	runtimemetrics "runtime/metrics"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/relay"
)

// memory watches limits.memory. Above it new sessions get 503, and those that
// hold the most data for peers that don't take it end with 1013, largest
// first, until what they hold makes up for the excess.
type memory struct {
	p *Proxy
	// used and collect are a test's; nil are the runtime's.
	used    func() uint64
	collect func()
}

// How often memory is looked at: a handful of numbers while there is enough.
// When there is not, each look costs a garbage collection.
const (
	memoryPass      = 250 * time.Millisecond
	memoryShortPass = time.Second
)

// shedLeast is the least that a session must hold to be ended for it, in
// bytes: below that its end would free next to nothing.
const shedLeast = 4 << 10

func (m *memory) String() string { return "memory" }

// Serve watches until ctx ends.
func (m *memory) Serve(ctx context.Context) error {
	for {
		pause := memoryPass
		if m.look(uint64(m.p.Config().Limits.Memory)) {
			pause = memoryShortPass
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// look reports whether the process is above limit, and does what that asks
// for. A limit of 0 is none.
func (m *memory) look(limit uint64) (short bool) {
	var used uint64
	if limit > 0 {
		used = m.measure()
		if short = used > limit; short {
			// Garbage is no reason to end a session.
			m.gc()
			used = m.measure()
			short = used > limit
		}
	}
	if m.p.admission.short.Swap(short) != short {
		if short {
			m.p.log.Warn("short of memory: new sessions are refused", zap.Uint64("used", used), zap.Uint64("limit", limit))
		} else {
			m.p.log.Info("memory is below its limit again", zap.Uint64("used", used), zap.Uint64("limit", limit))
		}
	}
	if short {
		m.shed(int64(used - limit))
	}
	return short
}

// shed ends sessions until what they hold makes up for excess bytes.
func (m *memory) shed(excess int64) {
	type held struct {
		session *Session
		bytes   int64
	}
	var all []held
	for _, s := range m.p.registry.all() {
		n := s.link.Weight()
		switch {
		case s.State() == Closing:
			excess -= n // on its way out
		case n >= shedLeast:
			all = append(all, held{s, n})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Compare(b.bytes, a.bytes) })
	shed, freed := 0, int64(0)
	for _, h := range all {
		if freed >= excess {
			break
		}
		h.session.end(End{Cause: relay.Shed})
		freed += h.bytes
		shed++
	}
	if shed > 0 {
		m.p.log.Warn("sessions shed to free memory", zap.Int("sessions", shed), zap.Int64("bytes", freed))
	}
}

func (m *memory) measure() uint64 {
	if m.used != nil {
		return m.used()
	}
	return usedMemory()
}

func (m *memory) gc() {
	if m.collect != nil {
		m.collect()
		return
	}
	runtime.GC()
}

// usedMemory is what the runtime has from the system, without what it would
// use again before it asked for more.
func usedMemory() uint64 {
	samples := [...]runtimemetrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	runtimemetrics.Read(samples[:])
	return samples[0].Value.Uint64() - samples[1].Value.Uint64() - samples[2].Value.Uint64()
}
