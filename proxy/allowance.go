package proxy

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
)

// allowances holds the message rates that sessions share. One is there as
// long as a session counts under it, and then until its burst is whole again:
// to close the last session and open another is no way to a new one.
type allowances struct {
	mu      sync.Mutex
	inUse   map[plug.AllowanceKey]*allowance
	resting *simplelru.LRU[plug.AllowanceKey, *allowance]
}

// maxResting bounds the allowances that no session has; the oldest is
// forgotten first.
const maxResting = 1 << 16

type allowance struct {
	shared   *relay.Shared
	rate     relay.Rate
	sessions int
}

func newAllowances() *allowances {
	resting, err := simplelru.NewLRU[plug.AllowanceKey, *allowance](maxResting, nil)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return &allowances{inUse: make(map[plug.AllowanceKey]*allowance), resting: resting}
}

// join returns the rates that the session of an info has a part in, until
// the info ends. The latest configuration's rate counts for all.
func (a *allowances) join(info *plug.Info) []*relay.Shared {
	if len(info.Allowances) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var joined []*relay.Shared
	for _, want := range info.Allowances {
		rate := relay.Rate{Messages: want.Messages, Bytes: want.Bytes, Burst: want.Burst}
		has := a.find(want.Key, rate)
		if has.rate != rate {
			has.rate = rate
			has.shared.Set(rate)
		}
		has.sessions++
		joined = append(joined, has.shared)
		info.OnEnd(func() { a.leave(want.Key, has) })
	}
	return joined
}

// find returns a key's allowance in use. mu is held.
func (a *allowances) find(key plug.AllowanceKey, rate relay.Rate) *allowance {
	has, ok := a.inUse[key]
	if !ok {
		if has, ok = a.resting.Get(key); ok {
			a.resting.Remove(key)
		} else {
			has = &allowance{shared: relay.NewShared(rate), rate: rate}
		}
		a.inUse[key] = has
	}
	return has
}

func (a *allowances) leave(key plug.AllowanceKey, has *allowance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if has.sessions--; has.sessions > 0 {
		return
	}
	delete(a.inUse, key)
	if !has.shared.Full() {
		a.resting.Add(key, has)
	}
	// Two go for each that comes, where they may.
	for range 2 {
		oldest, has, ok := a.resting.GetOldest()
		if !ok || !has.shared.Full() {
			return
		}
		a.resting.Remove(oldest)
	}
}
