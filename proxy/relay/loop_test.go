package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// startLoops serves n loops until the test ends.
func startLoops(t testing.TB, n int) *Loops {
	t.Helper()
	ls := NewLoops(n)
	if ls == nil {
		t.Skip("this system has no loops")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	for _, s := range ls.Services() {
		served.Go(func() {
			if err := s.Serve(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s ended: %v", s, err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		served.Wait()
		for _, p := range ls.loops {
			if left := p.sessions.Load(); left != 0 {
				t.Errorf("%s still counts %d sessions", p, left)
			}
		}
	})
	return ls
}

// testRules are the rows of the close table that the tests below come to.
var testRules = Table{
	ClientClosed: {Upstream: 1001}, ClientGone: {Upstream: 1001}, ClientProtocol: {Client: 1002, Upstream: 1002},
	UpstreamLost: {Client: 1012}, UpstreamTorn: {Abort: true}, ClientTorn: {Client: 1012},
	GaveUp: {Client: 1013, Upstream: 1001}, Kicked: {Client: 1008, Upstream: 1001}, Failed: {Client: 1011, Upstream: 1001},
	ClientStalled: {Client: 1001, Upstream: 1001}, HandlerStopped: {Upstream: 1001},
}

func testPolicy() *Policy {
	return &Policy{Rules: &testRules, Timeouts: Timeouts{Write: patience, Close: 4 * time.Second}}
}

// serveLink does what a worker does: it gives a Link one upstream after
// another until its end.
func serveLink(l *Link, client net.Conn, dial func() (net.Conn, error)) End {
	started := false
	for {
		conn, err := dial()
		if err != nil {
			l.End(End{Cause: GaveUp, Err: err})
			return l.Finish()
		}
		if _, ok := conn.(*tls.Conn); ok && !started && l.Policy.Continuity != nil {
			l.Start(client, nil) // a loop takes no such upstream together with its client
			started = true
		}
		if err := l.Attach(conn, nil, false, false); err != nil {
			conn.Close()
			l.End(End{Cause: Failed, Err: err})
			return l.Finish()
		}
		if !started {
			l.Start(client, nil)
			started = true
		}
		loss := l.Run()
		if loss == nil {
			return l.Finish()
		}
		if l.Policy.Continuity == nil {
			l.End(End{Cause: UpstreamLost, Err: loss})
			return l.Finish()
		}
	}
}

// numbered is a frame whose payload names itself: its number, and the sum of
// random bytes behind.
func numbered(rnd *rand.Rand, n uint64, size int, masked bool) []byte {
	payload := make([]byte, 12+size)
	binary.BigEndian.PutUint64(payload, n)
	for i := range size {
		payload[12+i] = byte(rnd.Uint32())
	}
	binary.BigEndian.PutUint32(payload[8:], crc32.ChecksumIEEE(payload[12:]))
	return appendFrame(nil, frame.Binary, payload, masked, 0)
}

// readNumbered reads one frame. It returns the number of a message that is
// what it was, and the opcode.
func readNumbered(r *bufio.Reader) (uint64, frame.Opcode, error) {
	var head []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, 0, err
		}
		head = append(head, b)
		h, n, err := frame.ParseHeader(head)
		if err != nil {
			return 0, 0, err
		}
		if n == 0 {
			continue
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return 0, 0, io.ErrUnexpectedEOF
		}
		if h.Masked {
			frame.Mask(h.Key, 0, payload)
		}
		if h.Opcode != frame.Binary {
			return 0, h.Opcode, nil
		}
		if len(payload) < 12 || crc32.ChecksumIEEE(payload[12:]) != binary.BigEndian.Uint32(payload[8:]) {
			return 0, 0, errors.New("message is corrupt")
		}
		return binary.BigEndian.Uint64(payload), h.Opcode, nil
	}
}

// reframe echoes whole frames, unmasked, until the stream ends.
func reframe(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 32<<10)
	for {
		var head []byte
		var h frame.Header
		for n := 0; n == 0; {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			head = append(head, b)
			if h, n, err = frame.ParseHeader(head); err != nil {
				return
			}
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		frame.Mask(h.Key, 0, payload)
		if _, err := c.Write(appendFrame(nil, h.Opcode, payload, false, 0)); err != nil {
			return
		}
		if h.Opcode == frame.Close {
			return
		}
	}
}

// tightPair is a pair of unix sockets with small buffers. TCP's would be as
// small, but its timers make them slow beyond use.
func tightPair() (own, peer net.Conn) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		panic(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			panic(err)
		}
		f.Close()
		conns[i].(*net.UnixConn).SetWriteBuffer(4 << 10)
	}
	return conns[0], conns[1]
}

// anyPair is a pair of TCP sockets or a tight one, perhaps with TLS on it.
func anyPair(rnd *rand.Rand) (own, peer net.Conn) {
	own, peer = tcpPairUnchecked()
	if rnd.IntN(2) == 0 {
		own.Close()
		peer.Close()
		own, peer = tightPair()
	}
	if rnd.IntN(2) == 0 {
		return own, peer
	}
	piece := 0
	if rnd.IntN(2) == 0 {
		piece = 200 + rnd.IntN(3000)
	}
	return shake(own, peer, piece)
}

// shake puts TLS on a pair of connections. A piece above 0 is the most that
// the peer sends at once.
func shake(own, peer net.Conn, piece int) (server, client *tls.Conn) {
	if piece > 0 {
		peer = pieces{peer, piece}
	}
	server = tls.Server(NewFooting(own, own), serverTLS())
	client = tls.Client(peer, &tls.Config{InsecureSkipVerify: true})
	shaken := background(func() {
		if err := server.Handshake(); err != nil {
			panic(err)
		}
	})
	if err := client.Handshake(); err != nil {
		panic(err)
	}
	<-shaken
	return server, client
}

// pieces is a connection that is written in pieces.
type pieces struct {
	net.Conn
	size int
}

// NetConn returns the connection itself.
func (p pieces) NetConn() net.Conn { return p.Conn }

func (p pieces) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = p.Conn.Write(b[n:min(len(b), n+p.size)])
		n += k
	}
	return n, err
}

// rst makes the closing of a connection a reset, where it can be one.
func rst(c net.Conn) {
	for {
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = below.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}

// Sessions of all habits at once: messages of any size, written in pieces,
// read slowly, and all ways to leave.
func TestLinkStress(t *testing.T) {
	eachEngine(t, func(t *testing.T, ls *Loops) {
		var sessions sync.WaitGroup
		for i := range stressed() {
			sessions.Go(func() { stressSession(t, ls, uint64(i)) })
		}
		soon(t, background(sessions.Wait), "all sessions end")
	})
}

// eachEngine runs a test on the pump, which is no Loops at all, and on two
// loops with 1, 2 and 4 processors.
func eachEngine(t *testing.T, f func(t *testing.T, ls *Loops)) {
	t.Run("pump", func(t *testing.T) { f(t, nil) })
	t.Run("loop", func(t *testing.T) {
		eachProcs(t, func(t *testing.T) { f(t, startLoops(t, 2)) })
	})
}

// stressed is the number of sessions of a stress test: as many as end within
// the time for a close under the race detector, too.
func stressed() int {
	if racing {
		return 60
	}
	return 300
}

func stressSession(t *testing.T, ls *Loops, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	own, peer := anyPair(rnd)
	defer peer.Close()
	policy := testPolicy()
	if rnd.IntN(2) == 0 {
		policy.Continuity = &Continuity{Whole: 8 << 10, Buffer: 16 << 10}
	}
	tight, secure := rnd.IntN(2) == 0, rnd.IntN(2) == 0
	session := Session{Policy: policy, Loops: ls}
	if rnd.IntN(2) == 0 {
		assembling(policy)
		session.Inspector = inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
		session.Inline = rnd.IntN(2) == 0
	}
	l := New(session)
	ended := make(chan End, 1)
	go func() {
		ended <- serveLink(l, own, func() (net.Conn, error) {
			if l.Ended() != nil {
				return nil, net.ErrClosed
			}
			a, b := tcpPairUnchecked()
			if tight {
				a.Close()
				b.Close()
				a, b = tightPair()
			}
			if secure {
				a, b = shake(a, b, 0)
			}
			go reframe(b)
			return a, nil
		})
	}()
	count := uint64(1 + rnd.IntN(40))
	var stream []byte
	for n := range count {
		size := rnd.IntN(200)
		switch rnd.IntN(10) {
		case 0:
			size = rnd.IntN(100_000)
		case 1, 2:
			size = rnd.IntN(10_000)
		}
		stream = append(stream, numbered(rnd, n, size, true)...)
	}
	leave := rnd.IntN(4)
	if leave == 0 {
		stream = append(stream, appendFrame(nil, frame.Close, []byte{3, 232}, true, 0)...)
	}
	if leave == 3 { // gone before the echo is there
		peer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // its echo is not read
		peer.Write(stream[:rnd.IntN(len(stream))])
		if rnd.IntN(2) == 0 {
			rst(peer)
		}
		peer.Close()
		<-ended
		return
	}
	pieces := rnd.IntN(2) == 0
	written := background(func() {
		for len(stream) > 0 {
			n := len(stream)
			if pieces {
				n = min(n, 1+int(seed*7919)%5000)
			}
			if _, err := peer.Write(stream[:n]); err != nil {
				return
			}
			stream = stream[n:]
		}
	})
	r := bufio.NewReaderSize(peer, 16+int(seed%64)*100)
	for want := range count {
		if n, op, err := readNumbered(r); err != nil || op != frame.Binary || n != want {
			t.Errorf("session %d: got message %d (%v, %v), want %d", seed, n, op, err, want)
			peer.Close()
			break
		}
	}
	<-written
	switch leave {
	case 0:
		if _, op, err := readNumbered(r); err != nil || op != frame.Close {
			t.Errorf("session %d: got %v, %v, want the echo of the close", seed, op, err)
		}
	case 1:
		peer.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, r)
	case 2:
		rst(peer)
	}
	peer.Close()
	<-ended
}

// tcpPairUnchecked is tcpPair for goroutines that the test does not run on.
func tcpPairUnchecked() (own, peer net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	if peer, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		panic(err)
	}
	if own, err = ln.Accept(); err != nil {
		panic(err)
	}
	return own, peer
}

// A client's messages reach one upstream each at the most, in order,
// whatever becomes of the upstreams.
func TestLinkAtMostOnce(t *testing.T) {
	eachEngine(t, func(t *testing.T, ls *Loops) {
		var sessions sync.WaitGroup
		for i := range stressed() / 5 {
			sessions.Go(func() { onceSession(t, ls, uint64(i)) })
		}
		soon(t, background(sessions.Wait), "all sessions end")
	})
}

func onceSession(t *testing.T, ls *Loops, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	own, peer := anyPair(rnd)
	defer peer.Close()
	policy := testPolicy()
	policy.Continuity = &Continuity{Whole: 64 << 10, Buffer: 32 << 10}
	l := New(Session{Policy: policy, Loops: ls})
	const count = 400
	fates := rand.New(rand.NewPCG(seed, 4)) // of the upstreams, drawn by whoever dials
	var upstreams sync.WaitGroup
	var last int64 = -1
	dial := func() (net.Conn, error) {
		upstreams.Wait()
		if l.Ended() != nil || last == count-1 {
			return nil, net.ErrClosed
		}
		a, b := tightPair() // what a socket has taken and nobody reads is lost
		if fates.IntN(2) == 0 {
			a, b = shake(a, b, 0)
		}
		budget := 20_000 + fates.IntN(60_000)
		reset := fates.IntN(2) == 0
		chunk := 16 + fates.IntN(4000)
		upstreams.Go(func() {
			defer b.Close()
			r := bufio.NewReaderSize(io.LimitReader(b, int64(budget)), chunk)
			for {
				n, op, err := readNumbered(r)
				if err != nil || op != frame.Binary {
					if err != nil && reset {
						rst(b)
					}
					if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
						var reset *net.OpError
						if !errors.As(err, &reset) {
							t.Errorf("session %d: %v", seed, err)
						}
					}
					return
				}
				if int64(n) <= last {
					t.Errorf("session %d: message %d came behind %d", seed, n, last)
				}
				last = int64(n)
			}
		})
		return a, nil
	}
	ended := make(chan End, 1)
	go func() { ended <- serveLink(l, own, dial) }()
	for n := range uint64(count) {
		if _, err := peer.Write(numbered(rnd, n, rnd.IntN(3000), true)); err != nil {
			if l.Ended() == nil {
				t.Errorf("session %d: write: %v", seed, err)
			}
			break
		}
	}
	peer.Write(appendFrame(nil, frame.Close, nil, true, 0))
	go io.Copy(io.Discard, peer)
	end := <-ended
	upstreams.Wait()
	if last < count/2 {
		t.Errorf("session %d: the last message that came is %d of %d; it ended with %v: %v", seed, last, count, end.Cause, end.Err)
	}
}

// A session whose steps panic ends with 1011; its loop and its neighbours
// go on.
func TestLoopPanicEndsOneSession(t *testing.T) {
	if racing {
		t.Skip("it breaks a session from outside its loop")
	}
	ls := startLoops(t, 1)
	type session struct {
		link *Link
		peer net.Conn
		end  chan End
	}
	var all []session
	for range 2 {
		own, peer := tcpPair(t)
		s := session{New(Session{Policy: testPolicy(), Loops: ls}), peer, make(chan End, 1)}
		go func() {
			s.end <- serveLink(s.link, own, func() (net.Conn, error) {
				a, b := tcpPairUnchecked()
				go reframe(b)
				return a, nil
			})
		}()
		all = append(all, s)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	bad, good := all[0], all[1]
	roundTrip := func(s session) error {
		if _, err := s.peer.Write(numbered(rnd, 5, 10, true)); err != nil {
			return err
		}
		s.peer.SetReadDeadline(time.Now().Add(patience))
		if n, op, err := readNumbered(bufio.NewReader(s.peer)); n != 5 || op != frame.Binary || err != nil {
			return fmt.Errorf("got %d, %v, %v", n, op, err)
		}
		return nil
	}
	for _, s := range all {
		if err := roundTrip(s); err != nil {
			t.Fatal(err)
		}
	}
	bad.link.up.count = nil
	if _, err := bad.peer.Write(numbered(rnd, 6, 10, true)); err != nil {
		t.Fatal(err)
	}
	bad.peer.SetReadDeadline(time.Now().Add(patience))
	payload := make([]byte, 4)
	if _, err := io.ReadFull(bad.peer, payload); err != nil || frame.Opcode(payload[0]&15) != frame.Close || binary.BigEndian.Uint16(payload[2:]) != 1011 {
		t.Errorf("the client got %x, %v, want a close frame with 1011", payload, err)
	}
	bad.peer.Close()
	if end := <-bad.end; end.Cause != Failed {
		t.Errorf("the session ended with %v, want %v", end.Cause, Failed)
	}
	if err := roundTrip(good); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	good.peer.Close()
	<-good.end
}

// A panic while an upstream is being let go of ends its session, too.
func TestLoopPanicInLoss(t *testing.T) {
	if racing {
		t.Skip("it breaks a session from outside its loop")
	}
	r := newRig(t, Session{Policy: newPolicy(holding), Loops: startLoops(t, 1)}, tcpPair, nil)
	u, c := r.attach(), r.client
	c.say(c.text("a"))
	u.expect(text("a"))
	r.link.seat.flight = flight{up: r.link.runs} // of a hold that is none
	r.link.hold = gathered{n: 5}
	u.Close()
	c.expect(closed(1011, ""))
	c.say(c.closing(1011, ""))
	r.over(Failed)
}

// A panic of the loop itself aborts its sessions; served again, it takes
// new ones.
func TestLoopIsServedAgain(t *testing.T) {
	ls := NewLoops(1)
	if ls == nil {
		t.Skip("this system has no loops")
	}
	p := ls.loops[0]
	serve := func(ctx context.Context) <-chan any {
		ended := make(chan any, 1)
		go func() {
			defer func() { ended <- recover() }()
			p.Serve(ctx)
		}()
		return ended
	}
	session := func() (net.Conn, chan End) {
		own, peer := tcpPair(t)
		l, end := New(Session{Policy: testPolicy(), Loops: ls}), make(chan End, 1)
		go func() {
			end <- serveLink(l, own, func() (net.Conn, error) {
				a, b := tcpPairUnchecked()
				go reframe(b)
				return a, nil
			})
		}()
		return peer, end
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	talk := func(c net.Conn) {
		t.Helper()
		c.Write(numbered(rnd, 5, 10, true))
		c.SetReadDeadline(time.Now().Add(patience))
		if n, _, err := readNumbered(bufio.NewReader(c)); n != 5 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := serve(ctx)
	first, end := session()
	talk(first)
	p.enqueue(nil) // no Link: the loop's own fault
	if v := <-ended; v == nil {
		t.Fatal("the loop did not panic")
	}
	if e := <-end; e.Cause != Failed {
		t.Errorf("its session ended with %v, want %v", e.Cause, Failed)
	}
	ended = serve(ctx)
	second, end := session()
	talk(second)
	second.Close()
	<-end
	cancel()
	if v := <-ended; v != nil {
		t.Errorf("the loop panicked: %v", v)
	}
}

// Nothing is allocated for a message that goes through a loop.
func TestLoopAllocatesNothing(t *testing.T) {
	ls := startLoops(t, 1)
	own, peer := tcpPair(t)
	l, end := New(Session{Policy: testPolicy(), Loops: ls}), make(chan End, 1)
	go func() {
		end <- serveLink(l, own, func() (net.Conn, error) {
			a, b := tcpPairUnchecked()
			go func() { // an echo that allocates nothing: a client may not send this, but nobody minds
				defer b.Close()
				buf, out := make([]byte, 64<<10), make([]byte, 64<<10)
				for {
					n, err := b.Read(buf)
					if err != nil {
						return
					}
					at := 0
					for m := 0; m+70 <= n; m += 70 {
						out[at], out[at+1] = buf[m], buf[m+1]&0x7f
						at += 66
					}
					if _, err := b.Write(out[:at]); err != nil {
						return
					}
				}
			}()
			return a, nil
		})
	}()
	message := appendFrame(nil, frame.Binary, make([]byte, 64), true, 0)
	answer := make([]byte, 66)
	trip := func() {
		if _, err := peer.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(peer, answer); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		trip()
	}
	if got := testing.AllocsPerRun(2000, trip); got >= 1 {
		t.Errorf("a round trip allocates %v times", got)
	}
	l.End(End{Cause: Kicked}) // this upstream answers no close frame
	peer.Close()
	<-end
}

// A loop that was held up reads a client before it calls it silent.
func TestLoopHeldUpHearsClients(t *testing.T) {
	ls := startLoops(t, 1)
	came, release := make(chan struct{}), make(chan struct{})
	slow := inspector(func(Side, frame.Opcode, []byte) Result {
		close(came)
		<-release
		return Result{}
	})
	holder := newRig(t, Session{Policy: newPolicy(assembling), Loops: ls, Inline: true, Inspector: slow}, tcpPair, nil)
	holder.attach()
	const timeout = 50 * time.Millisecond
	r := newRig(t, Session{Loops: ls, Policy: newPolicy(func(p *Policy) { p.Keepalive = Keepalive{timeout, 10 * timeout} })}, tcpPair, nil)
	u, c := r.attach(), r.client
	ping, _ := c.next()
	holder.client.say(holder.client.text("hold"))
	soon(t, came, "the loop is held up")
	c.say(c.frame(true, frame.Pong, ping.payload), c.text("I am here"))
	u.say(u.text("I am, too"))
	time.Sleep(20 * timeout) // what falls due meanwhile is what is tested
	close(release)
	for h, ok := u.next(); h != text("I am here"); h, ok = u.next() {
		if !ok || h.op != frame.Ping {
			t.Fatalf("the upstream got %v", h)
		}
	}
}

// A handler that holds its loop up is seen in the count of stalls.
func TestLoopCountsStalls(t *testing.T) {
	ls := startLoops(t, 1)
	policy := testPolicy()
	assembling(policy)
	slow := inspector(func(Side, frame.Opcode, []byte) Result {
		for began := now(); now() < began.add(2*stalled); { // as one that computes
		}
		return Result{}
	})
	own, peer := tcpPair(t)
	l, end := New(Session{Policy: policy, Loops: ls, Inspector: slow, Inline: true}), make(chan End, 1)
	go func() {
		end <- serveLink(l, own, func() (net.Conn, error) {
			a, b := tcpPairUnchecked()
			go reframe(b)
			return a, nil
		})
	}()
	rnd := rand.New(rand.NewPCG(1, 1))
	peer.Write(numbered(rnd, 1, 10, true))
	if n, _, err := readNumbered(bufio.NewReader(peer)); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	peer.Close()
	<-end
	if n, took := ls.Stalls(); n == 0 || took < stalled {
		t.Errorf("%d stalls took %v, want one at least", n, took)
	}
}

// A session goes on without an upstream that there is no descriptor for.
func TestLoopAttachesNothing(t *testing.T) {
	r := newRig(t, Session{Policy: newPolicy(holding), Loops: startLoops(t, 1)}, tcpPair, nil)
	r.client.say(r.client.text("held"))
	waitFor(t, func() bool { return r.link.Held() > 0 })
	own, _ := tcpPair(t)
	own.Close() // it can't be duplicated, either
	if r.link.Attach(own, nil, false, false) == nil {
		t.Error("it was attached")
	}
	if end := r.link.Ended(); end != nil {
		t.Errorf("the session ended with %v: %v", end.Cause, end.Err)
	}
	u := r.attach()
	u.expect(text("held"))
}

// Messages that have to be inflated are left to the pump.
func TestLoopTakesNoInflater(t *testing.T) {
	ls := startLoops(t, 1)
	for _, deflating := range []Side{Client, Upstream} {
		policy := testPolicy()
		assembling(policy)
		own, peer := tcpPair(t)
		up, far := tcpPairUnchecked()
		l := New(Session{Policy: policy, Loops: ls, Inspector: inspector(func(Side, frame.Opcode, []byte) Result { return Result{} }), Inline: true})
		l.Agree(0, deflating == Client)
		l.Attach(up, nil, deflating == Upstream, deflating == Upstream)
		l.Start(own, nil)
		if got := l.Engine(); got != "pump" {
			t.Errorf("deflating %v: on the %s", deflating, got)
		}
		l.End(End{Cause: Kicked})
		peer.Close()
		far.Close()
		l.Finish()
	}
}
