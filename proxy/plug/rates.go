package plug

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	xrate "golang.org/x/time/rate"
)

// maxRates bounds the keys whose rates are known. The one that was longest
// without a request is forgotten first.
const maxRates = 1 << 16

// Rates holds how many requests came of late under the rate plugs. Like
// Counts it belongs to the process. The zero value is empty.
type Rates struct {
	mu       sync.Mutex
	limiters *simplelru.LRU[countName, *xrate.Limiter]
}

// take counts a request, or returns how long it would have to wait: then it
// is not counted.
func (r *Rates) take(name countName, perSecond xrate.Limit, burst int, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limiters == nil {
		r.limiters, _ = simplelru.NewLRU[countName, *xrate.Limiter](maxRates, nil) // fails of no size only
	}
	l, ok := r.limiters.Get(name)
	if !ok {
		l = xrate.NewLimiter(perSecond, burst)
		r.limiters.Add(name, l)
	}
	if l.Limit() != perSecond || l.Burst() != burst { // a reload has changed it
		l.SetLimitAt(now, perSecond)
		l.SetBurstAt(now, burst)
	}
	reservation := l.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}
