package relay

// Weight is about how many bytes of messages the session holds: those that
// are not whole yet, and those that a peer has not taken. The buffers that a
// session holds while one chunk of its stream is in hand are not among them.
func (l *Link) Weight() int64 {
	n := l.held.Load() + l.gathered[Client].Load() + l.gathered[Upstream].Load()
	l.mu.Lock()
	n += int64(len(l.ahead) + len(l.parked))
	client, up := l.client, l.upstream
	l.mu.Unlock()
	for _, g := range []*leg{client, up} {
		if g != nil {
			n += g.weight()
		}
	}
	return n
}

// weight is what waits to be written to a leg.
func (l *leg) weight() int64 {
	l.mu.Lock()
	n := int64(len(l.controls) + len(l.messages))
	l.mu.Unlock()
	if l.sock != nil {
		n += l.sock.weight.Load()
	}
	return n
}
