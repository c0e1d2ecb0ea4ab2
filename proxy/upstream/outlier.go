package upstream

import (
	"time"

	"go.uber.org/zap"
)

// succeeded takes note that the target answered. One that was asked although
// it is ejected is back.
func (t *Target) succeeded() { t.failed, t.doubtful, t.ejected = 0, false, time.Time{} }

// failure takes note of a failed dial and ejects the target when that was
// one too many in a row. The count is kept over the ejection: the first
// failure after it ejects again at once, the first success ends the row.
// pool.mu is held.
func (t *Target) failure(now time.Time, cause error) {
	t.failures++
	t.failed++
	t.doubtful = true
	o := t.pool.policy.outlier
	if o == nil || t.failed < o.Failures || !t.listed || now.Before(t.ejected) || !t.pool.mayEject(now) {
		return
	}
	t.ejected = now.Add(o.Eject.Std())
	t.pool.log.Warn("target ejected", zap.String("target", t.name),
		zap.Int("failures", t.failed), zap.Duration("for", o.Eject.Std()), zap.Error(cause))
	t.pool.pools.notify()
}

// mayEject reports whether max_ejected lets one more target go: that
// fraction of the pool rounded down, but one at least where the pool has
// two. A pool's only target is never ejected, since a doubtful target is
// better than none. p.mu is held.
func (p *Pool) mayEject(now time.Time) bool {
	n := len(p.targets)
	limit := int(float64(p.policy.outlier.MaxEjected) * float64(n))
	if n > 1 && p.policy.outlier.MaxEjected > 0 {
		limit = max(limit, 1)
	}
	if n == 1 {
		limit = 0
	}
	out := 0
	for _, t := range p.targets {
		if now.Before(t.ejected) {
			out++
		}
	}
	return out < limit
}
