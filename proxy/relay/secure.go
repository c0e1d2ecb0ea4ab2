package relay

import (
	"crypto/tls"
	"net"
	"time"
)

// Footing is what TLS stands on where a loop may take the connection over
// after the handshake: until then the connection as it came, from then on
// the loop's socket.
type Footing struct {
	net.Conn
	socket net.Conn
}

// NewFooting returns the footing for TLS on conn. Socket is the plain one
// that conn has come from: whatever lies between the two holds no bytes and
// has nothing more to do after the handshake. An upstream's TLS has to have
// DynamicRecordSizingDisabled: see secured.
func NewFooting(conn, socket net.Conn) *Footing { return &Footing{conn, socket} }

// NetConn returns the plain socket, or nil once a loop has the connection.
func (f *Footing) NetConn() net.Conn { return f.socket }

// footed returns the plain socket of a connection, and the TLS on it if there
// is any; or nil where no loop can drive it.
func footed(conn net.Conn) (socket net.Conn, secure *tls.Conn) {
	if plain(conn) {
		return conn, nil
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if f, ok := secure.NetConn().(*Footing); ok && plain(f.socket) {
			return f.socket, secure
		}
	}
	return nil, nil
}

// secured is the TLS of a socket on a loop. Crypto/tls keeps what it has of a
// record and goes on after a read that found nothing, if that is a temporary
// error: so it never has to wait.
//
// A peer can read whole records only. So of what was written it has taken
// what lies in those that its socket has taken to their ends: it is sealed in
// parts of a record each.
type secured struct {
	conn    *tls.Conn
	wet     bool   // the kernel may have bytes; a socket without TLS calls that readable
	err     error  // how reading has ended
	sealed  []byte // what conn.Write has made, while it runs
	doing   doing
	written uint64 // bytes that were sealed
	taken   uint64 // of those, what the peer has taken
	parts   []part // that it may not have taken, in order
}

// part is where a part of what was written ends: in the socket's stream, and
// in what was written.
type part struct{ at, written uint64 }

// maxPart is what TLS seals in one record at the most (RFC 8446 section 5.1).
const maxPart = 16 << 10

// doing says what crypto/tls is doing when it writes.
type doing uint8

const (
	nothing doing = iota
	reading
	writing
)

// secure puts TLS that stands on a Footing on a leg's socket. From then on
// closing conn closes nothing.
func (l *leg) secure(conn *tls.Conn) {
	l.sock.tls = &secured{conn: conn, wet: true}
	footing := conn.NetConn().(*Footing)
	footing.Conn, footing.socket = (*below)(l), nil
}

// open reads what is there, until nothing is, or b is full, or a peer of tiny
// records or many wishes has had enough.
func (s *socket) open(b []byte) (n int, _ error) {
	t := s.tls
	t.doing = reading
	defer func() { t.doing = nothing }()
	for records := 0; n < len(b) && records < maxTurns && !s.answered && t.err == nil; records++ {
		k, err := t.conn.Read(b[n:])
		n += k
		if err == errDry {
			s.readable = false
			break
		}
		t.err = err
	}
	switch {
	case n > 0:
		return n, nil
	case t.err != nil:
		s.readable = false
		return 0, t.err
	}
	return 0, errDry
}

// seal writes p and returns how much of it the peer has taken. Records go to
// the socket together.
func (s *socket) seal(p []byte) (n int, _ error) {
	t, loop, before := s.tls, s.link.seat.loop, s.handed()
	t.doing, t.sealed = writing, loop.sealed[:0]
	defer func() {
		t.doing, t.sealed = nothing, nil
		n = int(s.handed() - before)
	}()
	for len(p) > 0 {
		t.sealed = t.sealed[:0]
		for at := s.end(); len(p) > 0 && len(t.sealed) < largeBuffer; {
			k := min(len(p), maxPart)
			if _, err := t.conn.Write(p[:k]); err != nil {
				return 0, err
			}
			t.written += uint64(k)
			t.parts = append(t.parts, part{at + uint64(len(t.sealed)), t.written})
			p = p[k:]
		}
		loop.sealed = t.sealed[:0]
		if _, err := s.put(t.sealed); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// handed returns how much of what was written lies in records that the socket
// has taken, of whose stream it has taken at bytes.
func (t *secured) handed(at uint64) uint64 {
	n := 0
	for n < len(t.parts) && t.parts[n].at <= at {
		t.taken = t.parts[n].written
		n++
	}
	t.parts = t.parts[:copy(t.parts, t.parts[n:])]
	return t.taken
}

// notify tells the peer that nothing follows (RFC 8446 section 6.1).
func (l *leg) notify() {
	if t := l.sock.tls; t != nil && l.broken == nil {
		t.conn.CloseWrite()
	}
}

// below is a leg's socket on a loop as TLS sees it.
type below leg

// Read implements net.Conn. It never waits.
func (b *below) Read(p []byte) (int, error) {
	s := b.sock
	t := s.tls
	if !t.wet {
		return 0, errDry
	}
	n, err := receive(s.fd, p)
	t.wet = err == nil && (n == len(p) || s.ended)
	return n, err
}

// Write implements net.Conn: it takes all of p.
func (b *below) Write(p []byte) (int, error) {
	s := b.sock
	t := s.tls
	if t.doing == writing {
		t.sealed = append(t.sealed, p...)
		return len(p), nil
	}
	if b.broken != nil {
		return 0, b.broken // nothing follows half a record
	}
	if _, err := s.put(p); err != nil {
		return 0, err
	}
	// The peer has asked for this, as it may for new keys: it is not read
	// until it has taken it.
	s.answered = s.answered || t.doing == reading && s.backlog.n > 0
	return len(p), nil
}

// Close implements net.Conn. The loop closes the socket.
func (b *below) Close() error { return nil }

// LocalAddr implements net.Conn. Nobody asks.
func (b *below) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn. Nobody asks.
func (b *below) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn. Nothing waits.
func (b *below) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn. Nothing waits.
func (b *below) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn. Nothing waits.
func (b *below) SetWriteDeadline(time.Time) error { return nil }
