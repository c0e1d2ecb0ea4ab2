package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// received is what a peer got from a leg, by the rules of RFC 6455.
type received struct {
	messages [][]byte // payloads, in order
	pings    [][]byte
	pongs    [][]byte
	close    []byte // payload of the close frame
	closed   bool
	after    int // bytes behind the close frame
	err      error
	open     bool // the stream ended inside a frame or a message
}

// peerReader parses what a leg writes, frame by frame.
type peerReader struct {
	scan    frame.Scanner
	buf     []byte
	message []byte
	received
	on func(op frame.Opcode, payload []byte) // of each message and control frame
}

// feed parses further bytes of the stream.
func (p *peerReader) feed(b []byte) {
	if p.closed {
		p.after += len(b)
		return
	}
	p.buf = append(p.buf, b...)
	for p.err == nil {
		// The frame's key is at hand only with its header: wait for all of it.
		h, n, err := frame.ParseHeader(p.buf)
		if err != nil {
			p.err = err
			return
		}
		if n == 0 || int64(len(p.buf)-n) < h.Length {
			return
		}
		whole := n + int(h.Length)
		ev, k, err := p.scan.Next(p.buf[:whole])
		if err != nil || k != whole {
			p.err = errors.Join(err, errors.New("a frame that the scanner refuses"))
			return
		}
		payload := bytes.Clone(p.buf[n:whole])
		if h.Masked {
			frame.Mask(h.Key, 0, payload)
		}
		p.buf = p.buf[whole:]
		switch {
		case ev == frame.Control:
			p.control(h.Opcode, payload)
		default:
			p.message = append(p.message, payload...)
			if ev == frame.Final {
				p.messages = append(p.messages, p.message)
				p.tell(p.scan.Type(), p.message)
				p.message = nil
			}
		}
		if p.closed {
			p.after += len(p.buf)
			return
		}
	}
}

func (p *peerReader) control(op frame.Opcode, payload []byte) {
	switch op {
	case frame.Ping:
		p.pings = append(p.pings, payload)
	case frame.Pong:
		p.pongs = append(p.pongs, payload)
	case frame.Close:
		p.closed, p.close = true, payload
	}
	p.tell(op, payload)
}

func (p *peerReader) tell(op frame.Opcode, payload []byte) {
	if p.on != nil {
		p.on(op, payload)
	}
}

// readAll parses everything until the connection ends.
func (p *peerReader) readAll(conn net.Conn) {
	buf := make([]byte, 8<<10)
	for {
		n, err := conn.Read(buf)
		p.feed(buf[:n])
		if err != nil {
			p.open = len(p.buf) > 0 || !p.scan.AtMessage()
			return
		}
	}
}

var quickPolicy = &Policy{Timeouts: Timeouts{Write: patience}}

// Whatever is written, injected and pushed at the same time, and however the
// stream is cut, the peer sees whole frames, messages in order, and nothing
// behind the close frame.
func TestLegWritesWholeFrames(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachPair(t, func(t *testing.T, p pair) {
			for _, side := range []Side{Client, Upstream} {
				for _, polite := range []bool{true, false} {
					writeUnderFire(t, p, side, polite)
				}
			}
		})
	})
}

func writeUnderFire(t *testing.T, p pair, side Side, polite bool) {
	own, peer := p(t)
	l := newLeg(own, nil, side, quickPolicy)
	got := peerReader{scan: frame.Scanner{Masked: l.masked}}
	reading := background(func() { got.readAll(peer) })

	stop := make(chan struct{})
	var fire sync.WaitGroup
	var pushed, injected atomic.Int64
	for i := range 3 {
		fire.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				payload := binary.BigEndian.AppendUint32([]byte{'I', byte(i)}, uint32(n))
				switch i {
				case 0:
					l.inject(frame.Pong, payload)
					injected.Add(1)
				case 1:
					if l.push(appendFrame(nil, frame.Binary, append(payload, 'P'), l.masked, 0)) == nil {
						pushed.Add(1)
					}
				case 2:
					l.insideMessage()
					l.atBoundary()
					l.said()
				}
				runtime.Gosched()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, uint64(side)))
	const messages = 300
	whole, err := writeMessages(l, rnd, messages)
	if err != nil {
		t.Fatal(err)
	}
	l.close(1001, "that's all", polite)
	if polite && whole < messages {
		t.Error("not all messages were written")
	}
	// The stream stands at a boundary, so the close frame is on its way.
	if !l.finish() {
		t.Error("the close frame is not out")
	}
	if _, err := l.write(appendFrame(nil, frame.Text, []byte("late"), l.masked, 0), mark{0, 0}); err != errClosed {
		t.Errorf("a write behind the close frame: got %v, want errClosed", err)
	}
	if err := l.push(nil); err != errClosed {
		t.Errorf("a push behind the close frame: got %v, want errClosed", err)
	}
	close(stop)
	fire.Wait()
	l.inject(frame.Ping, []byte("late"))
	l.closeWrite()
	soon(t, reading, "reading to the end")
	switch {
	case got.err != nil:
		t.Errorf("the stream is broken: %v", got.err)
	case !got.closed || got.open || got.after > 0:
		t.Errorf("closed %v, inside a frame %v, %d bytes behind the close frame", got.closed, got.open, got.after)
	}
	if code, reason, _ := frame.ParseClose(got.close); code != 1001 || string(reason) != "that's all" {
		t.Errorf("got close %d %q", code, reason)
	}
	next, nextPush := 0, uint32(0)
	for _, m := range got.messages {
		if len(m) == 7 && m[0] == 'I' {
			if n := binary.BigEndian.Uint32(m[2:]); n < nextPush {
				t.Fatalf("pushed message %d came behind %d", n, nextPush)
			} else {
				nextPush = n + 1
			}
			continue
		}
		if n := int(binary.BigEndian.Uint32(m)); n != next {
			t.Fatalf("got message %d, want %d", n, next)
		}
		next++
	}
	if next != messages {
		t.Errorf("got %d messages, want %d", next, messages)
	}
}

// writeMessages writes numbered messages in random fragments, cut at random
// places, with control frames between the fragments.
func writeMessages(l *leg, rnd *rand.Rand, count int) (whole int, err error) {
	var stream []byte
	type point struct {
		at      int
		message bool
	}
	var ends []point
	for i := range count {
		body := binary.BigEndian.AppendUint32(nil, uint32(i))
		body = append(body, bytes.Repeat([]byte("m"), rnd.IntN(400))...)
		op := frame.Text
		for {
			n := rnd.IntN(len(body) + 1)
			if rnd.IntN(3) == 0 {
				n = len(body)
			}
			h := frame.Header{Fin: n == len(body), Opcode: op, Masked: l.masked}
			stream = frame.AppendFrame(stream, h, body[:n])
			ends = append(ends, point{len(stream), h.Fin})
			if body, op = body[n:], frame.Continuation; h.Fin {
				break
			}
		}
	}
	at := 0
	for at < len(stream) {
		n := min(len(stream)-at, rnd.IntN(700))
		m := noMark
		for _, e := range ends {
			if e.at > at && e.at <= at+n {
				m.frame = e.at - at
				if e.message {
					m.message = e.at - at
				}
			}
		}
		if _, err := l.write(stream[at:at+n], m); err != nil {
			return whole, err
		}
		at += n
		for len(ends) > 0 && ends[0].at <= at {
			if ends[0].message {
				whole++
			}
			ends = ends[1:]
		}
		if m.frame == n && n > 0 && rnd.IntN(2) == 0 {
			if err := l.control(appendFrame(nil, frame.Ping, []byte("C"), l.masked, 0)); err != nil {
				return whole, err
			}
		}
	}
	return whole, nil
}

// A frame that is queued while another goroutine holds the write lock, for
// whatever, is written without anything further happening.
func TestLegLosesNoFlush(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		own, peer := tcpPair(t)
		l := newLeg(own, nil, Client, quickPolicy)
		pongs := make(chan struct{}, 16)
		got := peerReader{on: func(op frame.Opcode, _ []byte) {
			if op == frame.Pong {
				pongs <- struct{}{}
			}
		}}
		reading := background(func() { got.readAll(peer) })
		const rounds = 8000
		var calls sync.WaitGroup
		for i := range rounds {
			calls.Go(func() { l.inject(frame.Pong, []byte("a")) })
			switch i % 4 {
			case 0:
				calls.Go(func() { l.inject(frame.Pong, []byte("b")) })
			case 1:
				calls.Go(func() { l.insideMessage() })
			case 2:
				calls.Go(func() { l.atBoundary() })
			case 3:
				calls.Go(func() { l.write(appendFrame(nil, frame.Text, nil, false, 0), mark{2, 2}) })
			}
			calls.Wait()
			want := 1
			if i%4 == 0 {
				want = 2
			}
			for range want {
				timer := time.NewTimer(patience)
				select {
				case <-pongs:
				case <-timer.C:
					t.Fatalf("round %d: a queued pong was not written", i)
				}
				timer.Stop()
			}
		}
		own.Close()
		soon(t, reading, "reading to the end")
	})
}

// Everything that a peer has sent comes out of read without the peer sending
// more, whatever its length, on every kind of connection.
func TestLegReadsWhatIsThere(t *testing.T) {
	eachPair(t, func(t *testing.T, p pair) {
		own, peer := p(t)
		l := newLeg(own, nil, Client, quickPolicy)
		sizes := []int{1, 2, 511, 512, 513, 1024, 1025, 4095, 4096, 4097, 4608, 4609, 8192, 16383, 16384, 16385, 16896, 16897, 65535, 65536, 65537, 66048, 200000}
		for i := 1; i < 1100; i += 7 {
			sizes = append(sizes, i)
		}
		want := make([]byte, 200000)
		for i := range want {
			want[i] = byte(i * 7 >> 3)
		}
		for _, size := range sizes {
			sent := background(func() { peer.Write(want[:size]) })
			have := 0
			done := background(func() {
				for have < size {
					buf, n, err := l.read(0)
					if err == errWake {
						continue
					}
					if err != nil {
						t.Errorf("%d of %d bytes: %v", have, size, err)
						return
					}
					// A rest is given again, with what follows it.
					rest := 0
					if have+n < size {
						rest = min(n, 3)
					}
					if !bytes.Equal(buf.b[:n], want[have:have+n]) {
						t.Errorf("%d bytes at %d of %d are others", n, have, size)
						return
					}
					have += n - rest
					l.consumed(buf, buf.b[n-rest:n])
				}
			})
			soon(t, done, "reading what was sent")
			<-sent
			if t.Failed() {
				return
			}
		}
	})
}

func TestLegReadsEarlyBytesFirst(t *testing.T) {
	own, peer := tcpPair(t)
	early := bytes.Repeat([]byte("early"), 30000)
	l := newLeg(own, early, Upstream, quickPolicy)
	peer.Write([]byte("late"))
	peer.Close()
	var got []byte
	for {
		buf, n, err := l.read(0)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rest := 0
		if len(got) == 0 {
			rest = 2 // not enough to be used yet
		}
		got = append(got, buf.b[:n-rest]...)
		l.consumed(buf, buf.b[n-rest:n])
	}
	if want := append(early, "late"...); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// A reader that is woken looks up, however the wake crosses its reads,
// deadlines and data.
func TestLegLosesNoWake(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachPair(t, func(t *testing.T, p pair) {
			own, peer := p(t)
			l := newLeg(own, nil, Client, quickPolicy)
			const wakes = 10000
			var said, seen atomic.Int64
			looked := make(chan struct{}, 1)
			reading := background(func() {
				for i := 0; ; i++ {
					v := said.Load()
					seen.Store(v)
					select {
					case looked <- struct{}{}:
					default:
					}
					if v == wakes {
						return
					}
					var until instant
					if i%3 > 0 {
						until = now().add(time.Hour)
					}
					buf, _, err := l.read(until)
					if err == nil {
						l.consumed(buf, nil)
					} else if err != errWake {
						t.Error(err)
						return
					}
				}
			})
			writing := background(func() {
				for seen.Load() < wakes/2 { // then nothing but a wake comes
					if _, err := peer.Write([]byte("x")); err != nil {
						return
					}
					runtime.Gosched()
				}
			})
			for i := range wakes {
				said.Store(int64(i + 1))
				l.wake()
				// Every other one waits until it was seen: nothing else would
				// come and hide a wake that was lost.
				if i%2 == 0 {
					continue
				}
				timer := time.NewTimer(patience)
				for seen.Load() < int64(i+1) {
					select {
					case <-looked:
					case <-timer.C:
						t.Fatalf("wake %d was lost", i)
					}
				}
				timer.Stop()
			}
			soon(t, reading, "the last wake")
			peer.Close()
			soon(t, writing, "the writer")
		})
	})
}

func TestLegReadDeadline(t *testing.T) {
	eachPair(t, func(t *testing.T, p pair) {
		own, _ := p(t)
		l := newLeg(own, nil, Client, quickPolicy)
		for range 3 {
			start := now()
			until := start.add(20 * time.Millisecond)
			if _, _, err := l.read(until); err != errWake {
				t.Fatalf("got %v, want errWake", err)
			}
			if took := time.Duration(now() - start); took < 19*time.Millisecond || took > patience/2 {
				t.Errorf("looked up after %s, want 20ms", took)
			}
		}
		// A deadline that has gone by is not the next one's.
		done := background(func() { l.read(0) })
		select {
		case <-done:
			t.Error("read returned without a deadline")
		case <-time.After(50 * time.Millisecond):
		}
		own.Close()
		soon(t, done, "reading a closed connection")
	})
}

// A peer that takes data slowly is no stalled one, however long a message
// is; one that takes nothing is.
func TestLegStall(t *testing.T) {
	policy := &Policy{Timeouts: Timeouts{Write: 200 * time.Millisecond}}
	t.Run("slow", func(t *testing.T) {
		own, peer := tcpPair(t)
		own.(*net.TCPConn).SetWriteBuffer(16 << 10)
		peer.(*net.TCPConn).SetReadBuffer(16 << 10)
		l := newLeg(own, nil, Client, policy)
		long := appendFrame(nil, frame.Binary, make([]byte, 4<<20), false, 0)
		reading := background(func() {
			buf := make([]byte, 256<<10)
			for have := 0; have < len(long); {
				n, err := io.ReadAtLeast(peer, buf, min(len(buf), len(long)-have))
				have += n
				if err != nil {
					t.Error(err)
					return
				}
				<-time.After(60 * time.Millisecond)
			}
		})
		start := time.Now()
		if _, err := l.write(long, mark{len(long), len(long)}); err != nil {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		took := time.Since(start)
		own.Close()
		soon(t, reading, "the slow reader")
		if took < 300*time.Millisecond {
			t.Skipf("written in %s: the sockets took it all", took)
		}
	})
	t.Run("silent", func(t *testing.T) {
		own, _ := tcpPair(t)
		l := newLeg(own, nil, Client, policy)
		long := appendFrame(nil, frame.Binary, make([]byte, 32<<20), false, 0)
		start := time.Now()
		_, err := l.write(long, mark{len(long), len(long)})
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > patience {
			t.Fatalf("after %s: got %v, want a deadline", time.Since(start), err)
		}
		// It stays known why the stream was cut, and nothing is put behind it.
		if _, err := l.write([]byte{0x81, 0}, mark{2, 2}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the next write: got %v, want the same", err)
		}
		l.close(1001, "", false)
		if l.finish() || !l.insideMessage() || l.atBoundary() {
			t.Error("a cut stream is taken for one at a boundary")
		}
	})
	t.Run("hurried", func(t *testing.T) {
		own, _ := tcpPair(t)
		l := newLeg(own, nil, Client, &Policy{Timeouts: Timeouts{Write: time.Hour}})
		l.hurry(now().add(50 * time.Millisecond))
		long := make([]byte, 32<<20)
		done := background(func() {
			if _, err := l.write(long, noMark); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want a deadline", err)
			}
		})
		soon(t, done, "a write that was hurried before it began")
	})
}

// What waits for a peer that takes nothing is bounded.
func TestLegQueuesAreBounded(t *testing.T) {
	own, _ := tcpPair(t)
	l := newLeg(own, nil, Client, quickPolicy)
	l.write([]byte{0x02, 5, 'i', 'n'}, noMark) // inside a frame
	var err error
	pushes := 0
	for err == nil && pushes < 1000 {
		l.inject(frame.Pong, make([]byte, 125))
		err = l.push(make([]byte, 100<<10))
		pushes++
	}
	if err != errPushFull || pushes > 12 {
		t.Errorf("got %v after %d pushes, want errPushFull", err, pushes)
	}
	if n := len(l.controls); n > 1000 {
		t.Errorf("%d bytes of control frames wait", n)
	}
	one := newLeg(own, nil, Client, quickPolicy)
	one.atFrame, one.atMessage = false, false
	if err := one.push(make([]byte, 5<<20)); err != nil {
		t.Errorf("one large message: %v", err)
	}
}

// A leg that waits holds no buffer: on a plain socket it costs what its
// fields do, on another a few bytes more.
func TestIdleLegsHoldNoBuffer(t *testing.T) {
	const legs = 300
	for name, bound := range map[string]int{"tcp": 1500, "tls": 1500 + frontBuffer} {
		t.Run(name, func(t *testing.T) {
			own, peer := make([]net.Conn, legs), make([]net.Conn, legs)
			for i := range legs {
				own[i], peer[i] = pairs[name](t)
			}
			ping := appendFrame(nil, frame.Ping, []byte("warm"), true, 0)
			before := heap()
			var readers sync.WaitGroup
			var heard sync.WaitGroup
			heard.Add(legs)
			all := make([]*leg, legs)
			for i := range legs {
				l := newLeg(own[i], nil, Client, quickPolicy)
				all[i] = l
				readers.Go(func() {
					first := true
					for {
						buf, n, err := l.read(0)
						if err != nil {
							return
						}
						l.consumed(buf, nil)
						if first && n > 0 {
							first = false
							heard.Done()
						}
					}
				})
			}
			for i := range legs {
				if _, err := peer[i].Write(ping); err != nil {
					t.Fatal(err)
				}
			}
			heard.Wait()
			for i := range legs { // each waits again
				for !parked(all[i]) {
					runtime.Gosched()
				}
			}
			each := (heap() - before) / legs
			t.Logf("%d bytes a leg", each)
			if each > bound {
				t.Errorf("an idle leg holds %d bytes, want at most %d", each, bound)
			}
			for i := range legs {
				own[i].Close()
			}
			readers.Wait()
			runtime.KeepAlive(all)
		})
	}
}

// parked reports whether nothing of a leg's last chunk is in hand.
func parked(l *leg) bool { return instant(l.heard.Load()) < now()-instant(10*time.Millisecond) }

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestMarkCuts(t *testing.T) {
	tests := []struct {
		name          string
		m             mark
		at            int
		before, after mark
	}{
		{"nothing behind", mark{5, 5}, 5, mark{5, 5}, noMark},
		{"a frame behind", mark{9, 5}, 5, mark{5, 5}, mark{4, -1}},
		{"a message ends later", mark{9, 9}, 5, mark{5, 5}, mark{4, 4}},
		{"only a frame ends", mark{5, -1}, 5, mark{5, -1}, noMark},
		{"a message ended before", mark{5, 3}, 5, mark{5, -1}, noMark},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if b, a := tt.m.before(tt.at), tt.m.after(tt.at); b != tt.before || a != tt.after {
				t.Errorf("got %v and %v, want %v and %v", b, a, tt.before, tt.after)
			}
		})
	}
}
