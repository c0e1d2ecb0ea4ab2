package proxy

import "sync"

// registry knows every living session.
type registry struct {
	mu       sync.Mutex
	sessions map[string]*Session
	// ids holds the first session of each socket id; the others follow it.
	ids map[string]*Session
	// empty is closed when the last session has gone, once somebody waits.
	empty chan struct{}
}

func newRegistry() *registry {
	return &registry{sessions: make(map[string]*Session), ids: make(map[string]*Session)}
}

func (r *registry) add(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s.key] = s
	if id := s.ID(); id != "" {
		if s.nextOfID = r.ids[id]; s.nextOfID != nil {
			s.nextOfID.prevOfID = s
		}
		r.ids[id] = s
	}
}

// unlink takes a session out of the list of its socket id.
func (r *registry) unlink(s *Session) {
	if s.nextOfID != nil {
		s.nextOfID.prevOfID = s.prevOfID
	}
	switch {
	case s.prevOfID != nil:
		s.prevOfID.nextOfID = s.nextOfID
	case s.nextOfID != nil:
		r.ids[s.ID()] = s.nextOfID
	default:
		delete(r.ids, s.ID())
	}
	s.prevOfID, s.nextOfID = nil, nil
}

// withID returns the living sessions of a socket id. Sessions without one are
// nobody's.
func (r *registry) withID(id string) []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*Session
	for s := r.ids[id]; s != nil; s = s.nextOfID {
		list = append(list, s)
	}
	return list
}

// remove forgets a session and adds what it counted to its route's totals,
// in one step, so that no scrape misses it or counts it twice.
func (r *registry) remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.sessions[s.key]; !ok {
		return
	}
	delete(r.sessions, s.key)
	if s.ID() != "" {
		r.unlink(s)
	}
	s.route.count.past.add(s.link)
	if len(r.sessions) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
}

func (r *registry) get(key string) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[key]
}

// all returns the living sessions, in no order.
func (r *registry) all() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		list = append(list, s)
	}
	return list
}

// find returns a living session that suits, or nil. The order is random.
func (r *registry) find(suits func(*Session) bool) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		if suits(s) {
			return s
		}
	}
	return nil
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// emptied returns a channel that is closed when no session is left.
func (r *registry) emptied() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.empty == nil {
		r.empty = make(chan struct{})
	}
	return r.empty
}
