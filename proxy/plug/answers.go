package plug

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Bounds of a cache: the answers in it, and the size of one that is kept.
const (
	maxAnswers    = 4096
	maxAnswerKept = 8 << 10
)

type answerKey [sha256.Size]byte

// answers keeps verdicts for a while. Nil keeps none.
type answers struct {
	ttl time.Duration

	mu   sync.Mutex
	kept *simplelru.LRU[answerKey, keptAnswer]
}

type keptAnswer struct {
	verdict *verdict
	until   time.Time
}

func newAnswers(ttl time.Duration) *answers {
	if ttl <= 0 {
		return nil
	}
	kept, _ := simplelru.NewLRU[answerKey, keptAnswer](maxAnswers, nil) // fails of no size only
	return &answers{ttl: ttl, kept: kept}
}

func (a *answers) get(key answerKey, now time.Time) *verdict {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	kept, ok := a.kept.Get(key)
	if !ok {
		return nil
	}
	if now.After(kept.until) {
		a.kept.Remove(key)
		return nil
	}
	return kept.verdict
}

// put keeps a verdict, unless it is large or sets a cookie, which is one
// client's.
func (a *answers) put(key answerKey, v *verdict, now time.Time) {
	if a == nil || v.size() > maxAnswerKept || v.header["Set-Cookie"] != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept.Add(key, keptAnswer{v, now.Add(a.ttl)})
}

func (v *verdict) size() int {
	n := len(v.body)
	for name, values := range v.header {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	return n
}
