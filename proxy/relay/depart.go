package relay

// leave begins the end: both sides are told, and their legs depart.
func (st *seat) leave() {
	l := st.link
	st.left, st.silent = true, true
	l.mu.Lock()
	end, up, closeBy, fare := l.end, l.upstream, l.closeBy, l.farewell
	l.mu.Unlock()
	rule := &l.Policy.Rules[end.Cause]
	if up != nil {
		up.sock.leaving = true
		if rule.Upstream != 0 {
			up.close(rule.Upstream, "", false)
		}
		up.flush()
		up.sock.giveUp()
		if up.said() {
			up.closeWrite()
		}
		st.upstream = up
		st.depart(up, closeBy, up.said())
	}
	l.client.sock.leaving = true
	told := *end
	l.closeClient(&told, rule, fare, 0)
	if told.Code != end.Code {
		st.untold()
	}
	l.client.fresh = l.client.carry.len() > 0 // its close frame may be there already
	st.depart(l.client, closeBy, l.lingers(&told, fare))
}

// untold notes that the client has not got its close frame.
func (st *seat) untold() {
	l := st.link
	l.mu.Lock()
	end := *l.end
	end.Code, end.Reason = 0, ""
	l.end = &end
	l.mu.Unlock()
}

// lingers reports whether the client is read to its own close frame, so
// that closing the socket does not reset what it has not read yet.
func (l *Link) lingers(end *End, fare *farewell) bool {
	if l.closed || fare != nil && fare.cause != ClientProtocol {
		return false // it has said its last word
	}
	switch end.Cause {
	case ClientSilent, ClientStalled, ClientGone:
		return false // there is nobody to wait for
	}
	return true
}

// depart lets a leg go within the time.
func (st *seat) depart(g *leg, until instant, linger bool) {
	g.sock.until, g.sock.linger, g.sock.leaving = until, linger, true
}

// leaving drives the departure of both legs and returns when to look again.
func (st *seat) leaving() (next instant) {
	next = st.leaves(st.link.client)
	if st.upstream != nil {
		next = earliest(next, st.leaves(st.upstream))
	}
	return next
}

// leaves drives one leg's departure: what waits is written, the stream is
// ended, the peer is read to its end. It returns when to look again, or 0
// when the leg is gone.
func (st *seat) leaves(g *leg) instant {
	s := g.sock
	if s.fd < 0 {
		return 0
	}
	if s.backlog.n > 0 && !s.abort {
		g.drain()
		g.flush()
	}
	g.endStream()
	late := st.loop.now >= s.until || st.cut.Load()
	if s.backlog.n > 0 && !s.abort && !late {
		return s.until
	}
	if late && s.backlog.n > 0 && !s.abort {
		s.abort = true // the peer must not take what it has for whole
		if g == st.link.client {
			st.untold()
		}
	}
	if s.abort || late || !s.linger || st.readOut(g) {
		st.loop.drop(g)
		return 0
	}
	return s.until
}

// readOut reads what a peer still sends and reports whether that was all.
func (st *seat) readOut(g *leg) bool {
	l := st.link
	parse := g == l.client && l.end.Cause != ClientProtocol
	for turns := 0; g.sock.readable || g.fresh; turns++ {
		if turns == maxTurns {
			l.post()
			return false
		}
		b, err := g.draw(st.loop)
		if err == errDry {
			return false
		}
		if err != nil {
			return true
		}
		var rest []byte
		if parse {
			var closed bool
			if rest, closed, parse = l.up.skip(b); closed {
				return true
			}
		}
		g.stow(rest, false)
	}
	return false
}

func (st *seat) legsGone() bool {
	return st.link.client.sock.fd < 0 && (st.upstream == nil || st.upstream.sock.fd < 0) && len(st.strays) == 0
}

// vacate gives the seat up.
func (st *seat) vacate() {
	st.gone = true
	st.loop.wheel.stop(&st.timer)
	st.loop.sessions.Add(-1)
	l := st.link
	l.hold.reset()
	l.up.pend.reset()
	l.down.pend.reset()
	close(l.clientDone)
}

// crashed ends the session after a panic in one of its steps.
func (st *seat) crashed(err error) {
	if st.failed || st.left {
		st.abandon(err)
		return
	}
	st.failed, st.silent = true, true
	l := st.link
	l.End(End{Cause: Failed, Err: err})
	for _, g := range []*leg{l.client, st.upstream} {
		if g != nil {
			g.sock.readable, g.fresh = false, false
		}
	}
	if up := l.watched(); up != nil {
		up.sock.giveUp() // also where it was that which panicked
	}
	l.post()
}

// abandon resets what is left of a session that its loop can't drive.
func (st *seat) abandon(err error) {
	if st.gone {
		return
	}
	l := st.link
	l.End(End{Cause: Failed, Err: err})
	if !l.client.said() {
		st.untold()
	}
	l.mu.Lock()
	up, runs := l.upstream, l.runs
	l.mu.Unlock()
	for _, g := range append(st.strays, l.client, up, st.upstream, runs) {
		if g == nil {
			continue
		}
		g.sock.abort = true
		st.loop.drop(g)
		if g.sock.gave != nil {
			g.sock.giveUp()
		}
	}
	st.strays = nil
	st.vacate()
}
