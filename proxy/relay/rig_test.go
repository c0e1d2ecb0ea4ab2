package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// rules is the close table of the contract.
var rules = Table{
	ClientClosed:     {},
	ClientGone:       {Upstream: 1001},
	ClientProtocol:   {Client: 1002, Upstream: 1002, Reason: "protocol error"},
	ClientSilent:     {Client: 1001, Upstream: 1001},
	ClientStalled:    {Client: 1001, Upstream: 1001},
	UpstreamClosed:   {},
	UpstreamLost:     {Client: 1012, Reason: "upstream lost"},
	UpstreamProtocol: {Client: 1011, Upstream: 1002},
	UpstreamTorn:     {Upstream: 1002, Abort: true},
	ClientTorn:       {Client: 1012},
	TooBig:           {Client: 1009, Upstream: 1001},
	InvalidText:      {Client: 1007, Upstream: 1001},
	OverLimit:        {Client: 1008, Upstream: 1001},
	HandlerFailed:    {Client: 1011, Upstream: 1001},
	HandlerStopped:   {Upstream: 1001},
	Kicked:           {Client: 1008, Upstream: 1001},
	Expired:          {Client: 1008, Upstream: 1001},
	Idle:             {Client: 1001, Upstream: 1001},
	Lifetime:         {Client: 1001, Upstream: 1001},
	Draining:         {Client: 1012, Upstream: 1001},
	RedialRefused:    {Client: 1012},
	GaveUp:           {Client: 1013},
	Shed:             {Client: 1013, Upstream: 1001},
	Failed:           {Client: 1011, Upstream: 1001},
}

// newPolicy returns a policy whose timeouts a test does not meet, but for
// those that it sets.
func newPolicy(change func(*Policy)) *Policy {
	p := &Policy{Rules: &rules, Timeouts: Timeouts{Write: patience, Close: patience}}
	if change != nil {
		change(p)
	}
	return p
}

// holding is a continuity with small bounds.
func holding(p *Policy) {
	p.Continuity = &Continuity{Whole: 64, Buffer: 1 << 20, OnClose: []int{1001, 1012, 1013}}
}

// rig is a Link between peers that a test plays, with a worker that does
// what a session's does.
type rig struct {
	t      testing.TB
	link   *Link
	client *peer
	pair   pair
	first  [2]net.Conn   // the first upstream's ends, where they had to be there before
	next   chan net.Conn // the Link's next upstream
	joined chan struct{} // it is attached
	lost   chan *Loss    // each loss
	ended  chan struct{}
	end    End
}

// onEachEngine runs a test on the pump and on a loop, on that with an
// Inspector that may block and with one that does not, and with TLS on both
// sides.
func onEachEngine(t *testing.T, name string, f func(t *testing.T, s Session, client pair)) {
	t.Run(name+"/pump", func(t *testing.T) { f(t, Session{}, tcpPair) })
	for kind, inline := range map[string]bool{"blocking": false, "inline": true, "tls": true} {
		t.Run(name+"/loop/"+kind, func(t *testing.T) {
			client := tcpPair
			if kind == "tls" {
				client = tlsPair
			}
			f(t, Session{Loops: startLoops(t, 1), Inline: inline}, client)
		})
	}
}

// newRig starts a session. A client's early bytes are read by the Link
// before those that it sends later. A session that is over at its time does
// not spend it on handshakes of TLS, which take long on a busy machine.
func newRig(t testing.TB, s Session, p pair, early []byte) *rig {
	t.Helper()
	began := time.Now()
	own, far := p(t)
	var first [2]net.Conn
	if expires := !s.Expires.IsZero(); expires || s.Policy.Timeouts.Lifetime > 0 {
		first[0], first[1] = p(t)
		if expires {
			s.Expires = s.Expires.Add(time.Since(began))
		}
	}
	r := &rig{t: t, link: New(s), pair: p, first: first, next: make(chan net.Conn), joined: make(chan struct{}, 1), lost: make(chan *Loss, 100), ended: make(chan struct{})}
	r.client = newPeer(t, far, Client)
	go func() {
		defer close(r.ended)
		r.link.Agree(0, s.Deflate)
		r.link.Start(own, early)
		if s.Loops != nil && r.link.Engine() != "loop" {
			t.Errorf("the session is on the %s", r.link.Engine())
		}
		r.work()
		r.end = r.link.Finish()
	}()
	t.Cleanup(func() {
		r.link.End(End{Cause: Draining})
		far.Close()
		soon(t, r.ended, "the session's end")
	})
	return r
}

func (r *rig) work() {
	for {
		select {
		case conn := <-r.next:
			if r.link.Attach(conn, nil, false, false) != nil {
				conn.Close()
				continue
			}
			select {
			case r.joined <- struct{}{}:
			default: // nobody waits
			}
		case <-r.link.Done():
			return
		}
		loss := r.link.Run()
		if loss == nil {
			return
		}
		r.lost <- loss
		if r.link.Policy.Continuity == nil {
			cause := UpstreamLost
			if loss.Cause == LossProtocol {
				cause = UpstreamProtocol
			}
			r.link.End(End{Cause: cause, Err: loss})
			return
		}
	}
}

// attach gives the session its next upstream.
func (r *rig) attach() *peer {
	r.t.Helper()
	own, far := r.first[0], r.first[1]
	r.first = [2]net.Conn{}
	if own == nil {
		own, far = r.pair(r.t)
	}
	select {
	case r.next <- own:
		select {
		case <-r.joined:
		case <-r.ended:
		}
	case <-r.ended:
		own.Close()
	case <-time.After(patience):
		r.t.Fatal("the session takes no upstream")
	}
	return newPeer(r.t, far, Upstream)
}

// loss waits for the loss of the attached upstream.
func (r *rig) loss() *Loss {
	r.t.Helper()
	select {
	case l := <-r.lost:
		return l
	case <-r.ended:
		r.t.Fatalf("the session has ended: %v, %v", r.end.Cause, r.end.Err)
	case <-time.After(patience):
		r.t.Fatal("the upstream is not lost")
	}
	return nil
}

// over waits for the session's end.
func (r *rig) over(want Cause) {
	r.t.Helper()
	soon(r.t, r.ended, "the session's end")
	if r.end.Cause != want {
		r.t.Errorf("ended with %q (%v), want %q", r.end.Cause, r.end.Err, want)
	}
}

// peer plays one end of a session on the wire. What it gets is parsed by a
// scanner; anything that RFC 6455 forbids fails the test.
type peer struct {
	t testing.TB
	net.Conn
	side Side
	got  chan heard
	bye  chan struct{}   // closed when a close frame has come
	done <-chan struct{} // closed when the connection has ended
	read peerReader      // to be looked at when done is closed
	err  error           // how it ended

	total  atomic.Int64 // bytes that came
	from   byte         // see order
	number uint32
}

// heard is a message or a control frame that a peer got.
type heard struct {
	op      frame.Opcode
	payload string
}

func (h heard) String() string {
	if h.op == frame.Close {
		code, reason, _ := frame.ParseClose([]byte(h.payload))
		return fmt.Sprintf("close %d %q", code, reason)
	}
	if len(h.payload) > 40 {
		return fmt.Sprintf("%s of %d bytes", h.op, len(h.payload))
	}
	return fmt.Sprintf("%s %q", h.op, h.payload)
}

func newPeer(t testing.TB, conn net.Conn, side Side) *peer {
	p := &peer{t: t, Conn: conn, side: side, got: make(chan heard, 10000), bye: make(chan struct{})}
	p.read.scan = frame.Scanner{Masked: side == Upstream}
	gone := make(chan struct{})
	p.read.on = func(op frame.Opcode, payload []byte) {
		if op == frame.Close {
			close(p.bye)
		}
		h := heard{op, string(payload)}
		select {
		case p.got <- h:
			return
		default:
		}
		if side == Client { // an upstream may be one that nobody asks
			select {
			case p.got <- h:
			case <-gone:
			}
		}
	}
	p.done = background(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := conn.Read(buf)
			p.total.Add(int64(n)) // before anybody can know of them
			p.read.feed(buf[:n])
			if err != nil {
				p.read.open = len(p.read.buf) > 0 || !p.read.scan.AtMessage()
				p.err = err
				close(p.got)
				return
			}
		}
	})
	t.Cleanup(func() {
		close(gone)
		conn.Close()
		<-p.done
		if p.read.err != nil {
			t.Errorf("the %s got a broken stream: %v", side, p.read.err)
		}
		if p.read.after > 0 {
			t.Errorf("the %s got %d bytes behind the close frame", side, p.read.after)
		}
	})
	return p
}

// frames makes the frames of one side.
func (p *peer) frame(fin bool, op frame.Opcode, payload string) []byte {
	h := frame.Header{Fin: fin, Opcode: op, Masked: p.side == Client, Key: [4]byte{1, 2, 3, 4}}
	if !h.Masked {
		h.Key = [4]byte{}
	}
	return frame.AppendFrame(nil, h, []byte(payload))
}

func (p *peer) text(payload string) []byte { return p.frame(true, frame.Text, payload) }

func (p *peer) closing(code int, reason string) []byte {
	return p.frame(true, frame.Close, string(frame.AppendClose(nil, code, reason)))
}

// say writes bytes.
func (p *peer) say(b ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(b, nil)); err != nil {
		p.t.Errorf("the %s can't write: %v", p.side, err)
	}
}

// next returns what the peer gets next; ok is false at the stream's end.
func (p *peer) next() (h heard, ok bool) {
	p.t.Helper()
	select {
	case h, ok = <-p.got:
		return h, ok
	case <-time.After(patience):
		p.t.Fatalf("the %s got nothing in %s", p.side, patience)
	}
	return h, false
}

// expect checks what the peer gets next, in order.
func (p *peer) expect(want ...heard) {
	p.t.Helper()
	for _, w := range want {
		got, ok := p.next()
		if !ok {
			p.t.Fatalf("the %s got the end of its stream, want %v", p.side, w)
		}
		if got != w {
			p.t.Fatalf("the %s got %v, want %v", p.side, got, w)
		}
	}
}

func text(s string) heard { return heard{frame.Text, s} }

func closed(code int, reason string) heard {
	return heard{frame.Close, string(frame.AppendClose(nil, code, reason))}
}

// expectEnd checks that nothing more comes but the connection's end, in
// whole frames.
func (p *peer) expectEnd() {
	p.t.Helper()
	if h, ok := p.next(); ok {
		p.t.Fatalf("the %s got %v, want its stream's end", p.side, h)
	}
	if p.read.open {
		p.t.Errorf("the %s's stream ended inside a frame or message", p.side)
	}
}

// expectReset checks that the connection is reset.
func (p *peer) expectReset() {
	p.t.Helper()
	for {
		h, ok := p.next()
		if !ok {
			break
		}
		if h.op == frame.Close {
			p.t.Fatalf("the %s got %v, want a reset", p.side, h)
		}
	}
	if p.err == nil || p.err.Error() == "EOF" {
		p.t.Errorf("the %s's connection ended with %v, want a reset", p.side, p.err)
	}
}

// reset ends the connection the hard way.
func (p *peer) reset() {
	if c, ok := p.Conn.(*tls.Conn); ok { // nothing is said before
		rst(c.NetConn())
		c.NetConn().Close()
	}
	rst(p.Conn)
	p.Close()
}
