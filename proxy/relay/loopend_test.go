package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stentproxy/stent/proxy/frame"
)

// serveLoop serves a loop until the function it returns is called.
func serveLoop(p *Loop) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { p.Serve(ctx) })
	return func() {
		cancel()
		served.Wait()
	}
}

// A session that comes to a loop which was stopped is over at once, whatever
// is said to it meanwhile.
func TestStoppedLoopRefuses(t *testing.T) {
	ls := NewLoops(1)
	if ls == nil {
		t.Skip("this system has no loops")
	}
	serveLoop(ls.loops[0])()
	own, peer := tcpPair(t)
	upOwn, upPeer := tcpPair(t)
	l := New(Session{Policy: newPolicy(holding), Loops: ls})
	over := make(chan struct{})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				l.Push(Client, frame.Text, []byte("hello"))
				l.Push(Upstream, frame.Text, []byte("hello"))
				l.Move()
				l.Weight()
			}
		}
	})
	l.Attach(upOwn, nil, false, false)
	l.Start(own, nil)
	if l.Attach(upOwn, nil, false, false) == nil {
		t.Error("it takes an upstream")
	}
	if loss := l.Run(); loss != nil {
		t.Errorf("its upstream is lost: %v", loss)
	}
	l.Cut()
	if end := l.Finish(); end.Cause != Failed {
		t.Errorf("it ended with %v, want %v", end.Cause, Failed)
	}
	close(over)
	pushing.Wait()
	for _, c := range []net.Conn{peer, upPeer} {
		if _, err := io.ReadAll(c); err == nil {
			t.Error("a connection was not reset")
		}
	}
	if n := ls.loops[0].sessions.Load(); n != 0 {
		t.Errorf("the loop counts %d sessions", n)
	}
}

// A loop that is stopped aborts its sessions, whatever they are at: being
// started, moved to another upstream, pushed to.
func TestStoppedLoopAborts(t *testing.T) {
	const rounds, sessions = 20, 16
	for range rounds {
		ls := NewLoops(1)
		if ls == nil {
			t.Skip("this system has no loops")
		}
		stop := serveLoop(ls.loops[0])
		var all sync.WaitGroup
		flowing := make(chan struct{}, sessions)
		for i := range sessions {
			own, peer := tcpPairUnchecked()
			l := New(Session{Policy: newPolicy(func(p *Policy) { holding(p); assembling(p) }), Loops: ls, Inline: i%2 == 0,
				Inspector: inspector(func(Side, frame.Opcode, []byte) Result { return Result{} })})
			all.Go(func() {
				defer peer.Close()
				end := serveLink(l, own, func() (net.Conn, error) {
					a, b := tcpPairUnchecked()
					all.Go(func() { // one that is lost again and again
						defer b.Close()
						b.Write(appendFrame(nil, frame.Text, []byte("a"), false, 0))
						b.Read(make([]byte, 64))
					})
					return a, nil
				})
				if end.Cause != Failed {
					t.Errorf("a session ended with %v (%v), want %v", end.Cause, end.Err, Failed)
				}
			})
			all.Go(func() {
				for n := 0; ; n++ {
					if n == 5 {
						flowing <- struct{}{}
					}
					if _, err := peer.Write(appendFrame(nil, frame.Text, []byte("b"), true, 0)); err != nil {
						return
					}
					if _, err := peer.Read(make([]byte, 64)); err != nil {
						return
					}
				}
			})
		}
		for range sessions {
			<-flowing
		}
		stop()
		all.Wait()
	}
}
