package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// securePair is a pair with a version of TLS, whose peer sends in pieces and
// keeps what comes to it.
func securePair(t *testing.T, version uint16, piece int) (own, peer *tls.Conn, came *record) {
	t.Helper()
	a, b := tcpPair(t)
	came = &record{Conn: b}
	own = tls.Server(NewFooting(a, a), serverTLS())
	peer = tls.Client(pieces{came, piece}, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	shaken := background(func() {
		if err := own.Handshake(); err != nil {
			t.Error(err)
		}
	})
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	<-shaken
	return own, peer, came
}

// record is a connection that keeps what is read.
type record struct {
	net.Conn
	mu   sync.Mutex
	came []byte
}

func (r *record) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came = append(r.came, b[:n]...)
	return n, err
}

// alerts counts the records of that type.
func (r *record) alerts() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for b := r.came; len(b) >= 5; b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):] {
		if b[0] == 21 { // RFC 5246 section 6.2.1
			n++
		}
	}
	return n
}

// A loop goes on where the handshake has left TLS, with what that holds
// already, in whatever pieces the rest comes; and the client is told that
// nothing follows.
func TestLoopTakesTLSOver(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		for _, piece := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s in pieces of %d", name, piece), func(t *testing.T) {
				ls := startLoops(t, 1)
				own, peer, came := securePair(t, version, piece)
				rnd := rand.New(rand.NewPCG(1, 1))
				sizes := []int{10, 100, 0, 20_000, 3, 16 << 10}
				if piece > 100 {
					sizes = append(sizes, 300_000)
				}
				// Half of the first message was read by the handshake, half of
				// the second lies in TLS.
				first, second := numbered(rnd, 0, sizes[0], true), numbered(rnd, 1, sizes[1], true)
				sent := background(func() {
					if _, err := peer.Write(append(bytes.Clone(first), second[:50]...)); err != nil {
						t.Error(err)
					}
				})
				early := make([]byte, len(first)/2)
				if _, err := io.ReadFull(own, early); err != nil {
					t.Fatal(err)
				}
				<-sent
				l, end := New(Session{Policy: testPolicy(), Loops: ls}), make(chan End, 1)
				a, b := tcpPairUnchecked()
				go reframe(b)
				l.Attach(a, nil, false, false)
				l.Start(own, early)
				go func() {
					l.Run()
					end <- l.Finish()
				}()
				if got := l.Engine(); got != "loop" {
					t.Errorf("it is on the %s", got)
				}
				written := background(func() {
					peer.Write(second[50:])
					for n, size := range sizes[2:] {
						if _, err := peer.Write(numbered(rnd, uint64(n+2), size, true)); err != nil {
							t.Error(err)
						}
					}
				})
				peer.SetReadDeadline(time.Now().Add(patience))
				r := bufio.NewReader(peer)
				for want := range sizes {
					if n, op, err := readNumbered(r); n != uint64(want) || op != frame.Binary || err != nil {
						t.Fatalf("got message %d (%v, %v), want %d", n, op, err, want)
					}
				}
				<-written
				peer.Write(appendFrame(nil, frame.Close, []byte{3, 232}, true, 0))
				if _, op, err := readNumbered(r); op != frame.Close || err != nil {
					t.Errorf("got %v, %v, want a close frame", op, err)
				}
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("got %v, want the end", err)
				}
				if got := came.alerts(); version == tls.VersionTLS12 && got != 1 {
					t.Errorf("%d alerts came, want close_notify", got)
				}
				peer.Close()
				if e := <-end; e.Cause != ClientClosed {
					t.Errorf("ended with %v: %v", e.Cause, e.Err)
				}
			})
		}
	}
}

// A stream that is cut inside a record, or not TLS any more, ends its session.
func TestLoopTLSIsBroken(t *testing.T) {
	for name, last := range map[string][]byte{
		"inside a record": {23, 3, 3, 0, 100, 1, 2, 3},
		"a bad record":    append([]byte{23, 3, 3, 0, 20}, make([]byte, 20)...),
		"no record":       []byte("GET / HTTP/1.1\r\n\r\n"),
		"without a word":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Session{Policy: newPolicy(nil), Loops: startLoops(t, 1)}, tlsPair, nil)
			u := r.attach()
			r.client.say(r.client.text("whole"))
			u.expect(text("whole"))
			below := r.client.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
			below.Write(last)
			below.CloseWrite()
			u.expect(closed(1001, ""))
			u.Close()
			r.client.Close()
			r.over(ClientGone)
		})
	}
}

// A client whose wishes TLS answers, as those for new keys, is not read
// further while it does not take the answers.
func TestLoopTLSAnswersAreBounded(t *testing.T) {
	near, far := tcpPair(t)
	fd, err := duplicate(near)
	if err != nil {
		t.Skip(err)
	}
	near.Close()
	g := newSocketLeg(&Link{Session: Session{Policy: newPolicy(nil)}}, fd, nil, Client)
	s := g.sock
	s.link.client = g
	s.link.seat = &seat{link: s.link, loop: &Loop{}}
	own := tls.Server(NewFooting(far, far), serverTLS())
	g.secure(own)
	s.tls.doing = reading
	answer := make([]byte, 27)
	for range 1 << 20 {
		if _, err := own.NetConn().Write(answer); err != nil {
			t.Fatal(err)
		}
		if s.answered {
			break
		}
	}
	if !s.answered {
		t.Fatal("all of it was taken")
	}
	if _, err := s.open(make([]byte, 100)); err != errDry {
		t.Errorf("it is read further: %v", err)
	}
	drained := background(func() { io.Copy(io.Discard, far) })
	waitFor(t, func() bool { return g.drain() == nil && !g.backed() })
	if s.answered {
		t.Error("it is not read any more")
	}
	g.cut(io.ErrShortWrite)
	if _, err := own.NetConn().Write(answer); err == nil {
		t.Error("an answer was written behind half a record")
	}
	s.abort = true
	s.link.seat.loop.drop(g)
	s.link.seat.loop.bury()
	<-drained
}
