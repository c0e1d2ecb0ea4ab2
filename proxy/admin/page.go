package admin

import (
	"cmp"
	"slices"

	"github.com/stentproxy/stent/proxy"
)

// Bounds of one page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// page is a part of the sessions, in the order of their keys. Keys are
// random and don't change, so a reader who follows Next meets every session
// that lives all the while exactly once, whatever comes and goes.
type page struct {
	Sessions []proxy.SessionInfo `json:"sessions"`
	// Next is the cursor of the next page; empty after the last.
	Next string `json:"next"`
}

// list returns the first limit of the sessions that f chooses behind the
// cursor.
func list(all []*proxy.Session, f filter, cursor string, limit int) page {
	found := firstBehind(all, f, cursor, limit+1)
	p := page{Sessions: make([]proxy.SessionInfo, 0, min(limit, len(found)))}
	for i, s := range found {
		if i == limit {
			p.Next = found[limit-1].Key()
			break
		}
		p.Sessions = append(p.Sessions, s.Info())
	}
	return p
}

// firstBehind returns the first n, sorted. It never sorts more than twice as
// many at once: a hundred thousand sessions are read in many pages.
func firstBehind(all []*proxy.Session, f filter, cursor string, n int) []*proxy.Session {
	var first []*proxy.Session
	last := "" // once n are found: the highest key among them
	cut := func() {
		slices.SortFunc(first, func(a, b *proxy.Session) int { return cmp.Compare(a.Key(), b.Key()) })
		if len(first) >= n {
			first = first[:n]
			last = first[n-1].Key()
		}
	}
	for _, s := range all {
		key := s.Key()
		if key <= cursor || last != "" && key > last || !f.match(s) {
			continue
		}
		if first = append(first, s); len(first) == 2*n {
			cut()
		}
	}
	cut()
	return first
}
