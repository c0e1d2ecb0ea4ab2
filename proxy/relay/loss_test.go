package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// script is a stream of every form of frame for one side, with messages
// around the bound of holding, which is 64.
func script(side Side, long int) []byte {
	key := [4]byte{0xa1, 0xb2, 0xc3, 0xd4}
	var s []byte
	add := func(fin bool, op frame.Opcode, payload string) {
		h := frame.Header{Fin: fin, Opcode: op, Masked: side == Client, Key: key}
		if !h.Masked {
			h.Key = [4]byte{}
		}
		s = frame.AppendFrame(s, h, []byte(payload))
	}
	add(true, frame.Text, "one")
	add(true, frame.Binary, "")
	add(true, frame.Ping, "ping 1")
	add(true, frame.Text, strings.Repeat("w", 64)) // the largest that is whole
	add(false, frame.Text, "frag")
	add(true, frame.Ping, "ping 2")
	add(false, frame.Continuation, "")
	add(true, frame.Pong, "pong nobody asked for")
	add(true, frame.Continuation, "ments")
	add(true, frame.Text, strings.Repeat("L", 65)) // the smallest that is not
	add(true, frame.Text, "between")
	add(false, frame.Binary, strings.Repeat("a", 40)) // large with its second fragment
	add(true, frame.Ping, "ping 3")
	add(false, frame.Continuation, strings.Repeat("b", 40))
	add(true, frame.Ping, "")
	add(true, frame.Continuation, "")
	add(true, frame.Text, "after")
	add(true, frame.Binary, strings.Repeat("M", 200)) // a length of 16 bits
	if long > 0 {
		add(true, frame.Binary, strings.Repeat("X", long)) // of 64
	}
	add(true, frame.Text, "last")
	return s
}

// outcome is what becomes of a script that is cut.
type outcome struct {
	whole    []heard // messages and control frames that are whole before the cut
	rest     []heard // those behind it, the one that the cut falls into first
	begun    bool    // the cut falls into a large message of which a part went on
	wentOn   int     // bytes of data frames that went on before the cut, large pieces too
	pings    int     // whole pings before the cut
	lastPing string
}

// cutScript says, as the contract does, what becomes of a script that is
// cut behind n bytes.
func cutScript(s []byte, n int, whole int64) (o outcome) {
	var message []byte
	var from int   // where the message begins
	var size int64 // of the message, as its headers say
	var data int   // bytes of its frames
	open, large := false, false
	for at := 0; at < len(s); {
		h, k, _ := frame.ParseHeader(s[at:])
		payload := bytes.Clone(s[at+k : at+k+int(h.Length)])
		if h.Masked {
			frame.Mask(h.Key, 0, payload)
		}
		end := at + k + int(h.Length)
		if h.Opcode.Control() {
			e := heard{h.Opcode, string(payload)}
			if end <= n {
				o.whole = append(o.whole, e)
				if h.Opcode == frame.Ping {
					o.pings, o.lastPing = o.pings+1, e.payload
				}
			} else {
				o.rest = append(o.rest, e)
			}
			at = end
			continue
		}
		if !open {
			message, from, size, data, large = nil, at, 0, 0, false
		}
		message = append(message, payload...)
		if at+k <= n {
			size += h.Length
			large = large || size > whole
		}
		if at+k <= n { // a header goes on when it is whole
			data += min(end, n) - at
		}
		open = !h.Fin
		if h.Fin {
			op := frame.Opcode(s[from] & 0xf)
			if end <= n {
				o.whole = append(o.whole, heard{op, string(message)})
				o.wentOn += data
			} else {
				o.rest = append(o.rest, heard{op, string(message)})
				if from < n && large {
					o.begun = true
					o.wentOn += data
				}
			}
		}
		at = end
	}
	return o
}

// cuts are the places at which a script is cut: all of them, but for the
// inside of long payloads.
func cuts(s []byte) (at []int) {
	for from := 0; from < len(s); {
		h, k, _ := frame.ParseHeader(s[from:])
		end := from + k + int(h.Length)
		for n := from; n < end; n++ {
			if n < from+k+3 || n > end-3 || (n-from)%max(1, int(h.Length/20)) == 0 {
				at = append(at, n)
			}
		}
		from = end
	}
	return append(at, len(s))
}

// atEachCut runs a test for every cut of a script, some at the same time.
func atEachCut(t *testing.T, s []byte, f func(t testing.TB, n int)) {
	places := cuts(s)
	for i := 0; i < len(places); i += 50 {
		some := places[i:min(len(places), i+50)]
		t.Run(fmt.Sprintf("from %d", some[0]), func(t *testing.T) {
			t.Parallel()
			for _, n := range some {
				// A test of its own, so that its connections are closed before the
				// next begins.
				t.Run(fmt.Sprint(n), func(t *testing.T) { f(t, n) })
				if t.Failed() {
					return
				}
			}
		})
	}
}

// The upstream is cut behind every byte of what it says. The client gets
// each message whole and once, or the reset of the contract where a large one
// was begun to it, and goes on with the next upstream.
func TestCutUpstreamEverywhere(t *testing.T) {
	const whole = 64
	s := script(Upstream, 70000)
	for _, how := range []string{"end", "reset", "close 1012", "break"} {
		t.Run(how, func(t *testing.T) {
			atEachCut(t, s, func(t testing.TB, n int) {
				o := cutScript(s, n, whole)
				midFrame := insideFrame(s, n)
				if how == "close 1012" && (midFrame || o.begun) || how == "break" && midFrame {
					return // what is said next is a part of the frame; another test's
				}
				r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
				c, a := r.client, r.attach()
				a.say(s[:n])
				// What is whole has come before the upstream is lost: a reset
				// drops what is still on its way.
				c.expect(o.whole...)
				if o.begun {
					waitFor(t, func() bool { return r.link.client.insideMessage() })
				}
				switch how {
				case "end":
					a.Close()
				case "reset":
					a.reset()
				case "close 1012":
					a.say(a.closing(1012, "again"))
				case "break":
					a.say([]byte{0x83, 0})
				}
				if o.begun {
					c.expectReset()
					a.Close()
					r.over(UpstreamTorn)
					return
				}
				r.loss()
				b := r.attach()
				b.say(b.text("here I am"))
				c.expect(text("here I am"))
				c.say(c.text("hello again"))
				for {
					h, ok := b.next()
					if !ok {
						t.Fatal("the next upstream got its end")
					}
					if h.op == frame.Text {
						if h != text("hello again") {
							t.Fatalf("the next upstream got %v", h)
						}
						break
					}
				}
			})
		})
	}
}

// insideFrame reports whether a cut falls into a frame.
func insideFrame(s []byte, n int) bool {
	for at := 0; at < n; {
		h, k, _ := frame.ParseHeader(s[at:])
		if at += k + int(h.Length); at > n {
			return true
		}
	}
	return false
}

// The upstream is lost when the client has sent the first n bytes of a
// script. What was whole went to that upstream; the next gets the rest,
// from the message that was cut on, or the client 1012 where a large one was
// begun to the first.
func TestCutClientEverywhere(t *testing.T) {
	const whole = 64
	s := script(Client, 70000)
	for _, how := range []string{"end", "reset", "close 1012", "held"} {
		t.Run(how, func(t *testing.T) {
			atEachCut(t, s, func(t testing.TB, n int) {
				o := cutScript(s, n, whole)
				r := newRig(t, Session{Policy: newPolicy(holding)}, tcpPair, nil)
				c, a := r.client, r.attach()
				c.say(s[:n])
				a.expect(o.whole...)
				if o.begun {
					waitFor(t, func() bool { return a.wireBytes() >= o.wentOn+controlBytes(o) })
				}
				switch how {
				case "end", "held":
					a.Close()
				case "reset":
					a.reset()
				case "close 1012":
					a.say(a.closing(1012, "again"))
				}
				if o.begun {
					for { // the answers to its pings come first
						h, ok := c.next()
						if !ok || h.op != frame.Pong {
							if h != closed(1012, "") {
								t.Fatalf("the client got %v, want 1012", h)
							}
							break
						}
					}
					c.say(s[n:], c.closing(1012, ""))
					a.Close()
					r.over(ClientTorn)
					return
				}
				r.loss()
				if o.pings > 0 { // the latest is answered for the upstream that is gone
					c.expect(heard{frame.Pong, o.lastPing})
				}
				rest := o.rest
				if how == "held" {
					c.say(s[n:])
					waitFor(t, func() bool { return r.link.up.count.Messages() == 11 })
					// Control frames have been answered, or are nobody's.
					rest = slices.DeleteFunc(slices.Clone(rest), func(h heard) bool { return h.op.Control() })
				}
				b := r.attach()
				if how != "held" {
					// A frame that waits in the client's socket goes to whichever
					// upstream is there when it is read.
					c.say(s[n:])
				}
				b.expect(rest...)
				b.say(b.text("got it"))
				for {
					h, ok := c.next()
					if !ok || h.op == frame.Text {
						if h != text("got it") {
							t.Fatalf("the client got %v", h)
						}
						return
					}
				}
			})
		})
	}
}

func controlBytes(o outcome) (n int) {
	for _, h := range o.whole {
		if h.op.Control() {
			n += len(h.payload) + 6
		}
	}
	return n
}

// wireBytes is how much the peer has received.
func (p *peer) wireBytes() int { return int(p.total.Load()) }

// Upstreams come and go at random while messages flow both ways, numbered.
// The client is never disconnected; what it gets is whole, in order and
// without a gap for each upstream; no upstream gets a message that another
// got, nor one out of order.
func TestLossUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	relay := func(p *Policy) { holding(p); p.Continuity.Whole = 4096 }
	tests := []struct {
		name string
		pair pair
		mode func(*Policy)
	}{
		{"relay", tcpPair, relay},
		{"relay over unix sockets", unixPair, relay},
		{"relay over TLS", tlsPair, relay},
		{"small buffer", tcpPair, func(p *Policy) { relay(p); p.Continuity.Buffer = 100 }},
		{"message mode", tcpPair, func(p *Policy) { holding(p); assembling(p) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lossUnderLoad(t, tt.pair, newPolicy(tt.mode), rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func lossUnderLoad(t *testing.T, p pair, policy *Policy, rnd *rand.Rand) {
	passing := inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })
	r := newRig(t, Session{Policy: policy, Inspector: passing}, p, nil)
	c := r.client
	stop := make(chan struct{})
	var load sync.WaitGroup
	say := func(p *peer, name byte, seed uint64) func() {
		return func() {
			rnd := rand.New(rand.NewPCG(seed, 2))
			for n := uint32(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := binary.BigEndian.AppendUint32([]byte{name}, n)
				body = append(body, bytes.Repeat([]byte{name}, rnd.IntN(4000))...)
				at := rnd.IntN(len(body))
				b := slices.Concat(p.frame(false, frame.Binary, string(body[:at])), p.frame(true, frame.Ping, "p"), p.frame(true, frame.Continuation, string(body[at:])))
				for len(b) > 0 {
					k := min(len(b), 1+rnd.IntN(3000))
					if _, err := p.Write(b[:k]); err != nil {
						return
					}
					b = b[k:]
				}
			}
		}
	}
	load.Go(say(c, 'c', rnd.Uint64()))
	const upstreams = 12
	var peers []*peer
	var moved []bool
	heard := func(h heard, ok bool) (from byte) {
		if !ok {
			t.Fatalf("the client was disconnected: %v", r.link.Ended())
		}
		if h.op != frame.Binary {
			return 0
		}
		if err := c.order(h.payload); err != nil {
			t.Fatal(err)
		}
		return h.payload[0]
	}
	for i := range upstreams {
		u := r.attach()
		peers = append(peers, u)
		load.Go(say(u, byte('A'+i), rnd.Uint64()))
		// Some of both have come before it goes.
		for want := 1 + rnd.IntN(30); want > 0; {
			if heard(c.next()) == byte('A'+i) {
				want--
			}
		}
		if i == upstreams-1 {
			break
		}
		how := rnd.IntN(3)
		moved = append(moved, how == 2)
		switch how {
		case 0:
			u.Close()
		case 1:
			u.reset()
		case 2:
			r.link.Move()
			left := u.bye
			load.Go(func() {
				<-left
				u.Close()
			})
		}
		for lost := false; !lost; { // not before the client has what was said
			select {
			case <-r.lost:
				lost = true
			case h, ok := <-c.got:
				heard(h, ok)
			case <-time.After(patience):
				t.Fatal("the upstream is not lost")
			}
		}
	}
	close(stop)
	r.link.End(End{Cause: Draining})
	c.Close()
	for _, u := range peers {
		u.Close()
	}
	r.over(Draining)
	load.Wait()
	// What the upstreams got, one after the other.
	next := uint32(0)
	for i, u := range peers {
		<-u.done
		first := true
		for _, m := range u.read.messages {
			n := binary.BigEndian.Uint32(m[1:])
			if m[0] != 'c' || n < next {
				t.Fatalf("upstream %d got message %d of %q, want %d or later", i, n, m[0], next)
			}
			if first && i > 0 && moved[i-1] && len(peers[i-1].read.messages) > 0 && n > next {
				t.Fatalf("upstream %d got message %d, want %d: nothing may be lost where an upstream was left on purpose", i, n, next)
			}
			next = n + 1
			first = false
		}
	}
	if next == 0 {
		t.Error("no upstream got anything")
	}
}

// order checks that messages from one upstream come in order and without a
// gap, and never from one before it.
func (p *peer) order(payload string) error {
	n := binary.BigEndian.Uint32([]byte(payload[1:]))
	if payload[0] != p.from {
		if payload[0] < p.from {
			return fmt.Errorf("%q comes behind %q", payload[0], p.from)
		}
		p.from, p.number = payload[0], 0
	}
	if n != p.number {
		return fmt.Errorf("message %d of %q, want %d", n, p.from, p.number)
	}
	p.number++
	if strings.Trim(payload[5:], payload[:1]) != "" {
		return fmt.Errorf("message %d of %q is torn", n, p.from)
	}
	return nil
}
