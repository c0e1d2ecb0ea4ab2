package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// Whatever both peers do, and whoever else has a hand in it, a session ends
// when it is told to, its client has got whole frames and nothing behind a
// close frame, and nothing of stent's own has failed.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	sessions := 300
	if testing.Short() {
		sessions = 50
	}
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for n := range sessions / 10 {
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					chaos(t, rand.New(rand.NewPCG(seed, uint64(i*sessions+n))))
				})
			}
		})
	}
}

func chaos(t *testing.T, rnd *rand.Rand) {
	policy := newPolicy(func(p *Policy) {
		p.Timeouts = Timeouts{Write: 100 * time.Millisecond, Close: 100 * time.Millisecond}
		if rnd.IntN(2) == 0 {
			p.Keepalive = Keepalive{5 * time.Millisecond, 50 * time.Millisecond}
		}
		if rnd.IntN(2) == 0 {
			holding(p)
			p.Continuity.Buffer = 1 << rnd.IntN(15)
			p.Continuity.CloseWhenFull = rnd.IntN(4) == 0
			p.Continuity.ReplayFirst, p.Continuity.ReplayBytes = rnd.IntN(3), 1000
		}
		if rnd.IntN(3) == 0 {
			assembling(p)
		}
		if rnd.IntN(4) == 0 {
			p.Rate = Rate{Messages: 1000, Bytes: 1e6, Burst: time.Millisecond, OnLimit: OnLimit(rnd.IntN(3))}
		}
	})
	passing := inspector(func(from Side, _ frame.Opcode, data []byte) Result {
		switch {
		case len(data) == 3:
			return Result{Verdict: Drop}
		case len(data) == 5:
			return Result{Verdict: Reply, Type: frame.Text, Data: []byte("answer")}
		case len(data) == 7:
			panic("seven")
		}
		return Result{}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("policy %+v, continuity %+v", *policy, policy.Continuity)
		}
	})
	p := []pair{tcpPair, unixPair, tlsPair}[rnd.IntN(3)]
	s := Session{Policy: policy, Inspector: passing, Inline: rnd.IntN(2) == 0}
	if loopsWork && rnd.IntN(2) == 0 {
		s.Loops = startLoops(t, 1)
	}
	r := newRig(t, s, p, nil)
	var actors sync.WaitGroup
	conns := []net.Conn{r.client}
	act := func(p *peer) {
		seed := rnd.Uint64()
		actors.Go(func() { play(p, rand.New(rand.NewPCG(seed, 5))) })
	}
	if policy.Continuity == nil || rnd.IntN(2) == 0 {
		// Without continuity no client is answered before its upstream.
		act(r.attach())
	}
	act(r.client)
	third := rnd.Uint64()
	actors.Go(func() { meddle(r.link, rand.New(rand.NewPCG(third, 6))) })
	for range rnd.IntN(4) {
		own, far := p(t)
		conns = append(conns, far)
		select {
		case r.next <- own:
			if rnd.IntN(8) == 0 {
				break // this one takes nothing and says nothing
			}
			act(newPeer(t, far, Upstream))
		case <-r.ended:
			own.Close()
		case <-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond):
			own.Close()
		}
	}
	actors.Wait()
	r.link.End(End{Cause: Kicked})
	for _, c := range conns {
		c.Close()
	}
	soon(t, r.ended, "the session's end")
	if r.end.Cause == Failed {
		t.Errorf("the session failed: %v", r.end.Err)
	}
}

// play is what a peer may do. It ends before long.
func play(p *peer, rnd *rand.Rand) {
	open := false
	for range rnd.IntN(60) {
		size := []int{0, 1, 3, 5, 60, 64, 65, 200, 5000, 70000}[rnd.IntN(10)]
		if rnd.IntN(100) == 0 {
			size = 7
		}
		op := frame.Binary
		if open {
			op = frame.Continuation
		}
		fin := rnd.IntN(3) > 0
		b := p.frame(fin, op, string(make([]byte, size)))
		switch rnd.IntN(40) {
		default:
			open = !fin
		case 0, 1, 2:
			b = p.frame(true, frame.Ping, "ping")
		case 3, 4:
			b = p.frame(true, frame.Pong, "pong")
		case 5:
			b = p.closing(1000+rnd.IntN(20), "chaos")
		case 6:
			b = p.frame(true, frame.Close, "")
		case 7: // garbage
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		case 8: // cut short
			b = b[:rnd.IntN(len(b)+1)]
			open = !fin
		case 9:
			if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
				c.CloseWrite()
			}
		case 10:
			p.reset()
		case 11:
			p.Close()
		}
		p.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for len(b) > 0 {
			n := min(len(b), 1+rnd.IntN(20000))
			if _, err := p.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	}
}

// meddle is what others may do to a session at any time.
func meddle(l *Link, rnd *rand.Rand) {
	for range rnd.IntN(30) {
		switch rnd.IntN(10) {
		case 0:
			l.Move()
		case 1, 2, 3:
			l.Push(Client, frame.Text, make([]byte, rnd.IntN(3000)))
		case 4, 5, 6:
			l.Push(Upstream, frame.Text, make([]byte, rnd.IntN(3000)))
		case 7:
			l.Held()
			l.Attached()
		case 8:
			if rnd.IntN(10) == 0 {
				l.End(End{Cause: Draining})
			}
		case 9:
			time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
		}
	}
}
