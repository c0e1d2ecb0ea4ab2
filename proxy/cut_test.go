package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/testbackend"
)

// cutter is a TCP relay in front of a backend that cuts connections at
// random places, once it is told to.
type cutter struct {
	t       *testing.T
	listen  net.Listener
	backend string
	seed    uint64
	mean    int // bytes, either way, between two cuts
	cuts    [cutKinds]atomic.Int64
	conns   uint64
	relays  sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	open    map[net.Conn]bool
	angry   bool
	cutting sync.WaitGroup // connections that are being cut
}

// enrage lets the cutter cut.
func (c *cutter) enrage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.angry = true
}

// calm ends that, and returns when every cut that had begun is over: what is
// handed to a connection from then on arrives.
func (c *cutter) calm() {
	c.mu.Lock()
	c.angry = false
	c.mu.Unlock()
	c.cutting.Wait()
}

// cutKind is a way to cut.
type cutKind int

const (
	cutReset   cutKind = iota // both sides see a reset
	cutEnd                    // both sides see the end of the stream
	cutHalf                   // the proxy sees an end, the backend nothing yet
	cutStall                  // nothing moves for a while, then a reset
	cutForever                // nothing moves any more
	cutKinds
)

func (k cutKind) String() string {
	return [...]string{"reset", "end", "half-closed", "stall", "silence"}[k]
}

func newCutter(t *testing.T, backend string, seed uint64, mean int) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{t: t, listen: l, backend: backend, seed: seed, mean: mean, open: make(map[net.Conn]bool)}
	c.relays.Go(c.serve)
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for conn := range c.open {
			conn.Close()
		}
		c.mu.Unlock()
		c.relays.Wait()
	})
	return c
}

func (c *cutter) serve() {
	for {
		in, err := c.listen.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.backend)
		if err != nil {
			in.Close()
			continue
		}
		c.conns++
		r := &cutRelay{cutter: c, rng: rand.New(rand.NewPCG(c.seed, c.conns)), in: in.(*net.TCPConn), out: out.(*net.TCPConn), done: make(chan struct{})}
		r.left = r.draw()
		c.track(true, in, out)
		c.relays.Go(r.run)
	}
}

func (c *cutter) track(add bool, conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		if add {
			c.open[conn] = true
		} else {
			delete(c.open, conn)
		}
	}
}

// cutRelay is one connection through a cutter.
type cutRelay struct {
	cutter  *cutter
	in, out *net.TCPConn
	done    chan struct{}

	mu   sync.Mutex
	rng  *rand.Rand
	left int  // bytes until the cut
	cut  bool // it has begun
}

// draw says after how many bytes to cut: mostly anywhere, sometimes in the
// handshake or right behind it.
func (r *cutRelay) draw() int {
	if r.rng.IntN(8) == 0 {
		return r.rng.IntN(600)
	}
	return int(r.rng.ExpFloat64() * float64(r.cutter.mean))
}

func (r *cutRelay) run() {
	defer r.cutter.track(false, r.in, r.out)
	var both sync.WaitGroup
	both.Go(func() { r.copy(r.out, r.in) })
	both.Go(func() { r.copy(r.in, r.out) })
	both.Wait()
	r.in.Close()
	r.out.Close()
}

// copy moves one direction's bytes until the cut.
func (r *cutRelay) copy(to, from *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		allowed, cut := r.take(n)
		_, failed := to.Write(buf[:allowed])
		switch {
		case cut:
			r.end()
			return
		case allowed < n:
			return // the other direction cuts both
		case failed != nil:
			r.in.Close()
			r.out.Close()
			return
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}

// take returns how many of n bytes may pass before the cut, and whether that
// is to begin behind them.
func (r *cutRelay) take(n int) (allowed int, cut bool) {
	r.cutter.mu.Lock()
	defer r.cutter.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return 0, false
	}
	if !r.cutter.angry {
		return n, false
	}
	if n <= r.left {
		r.left -= n
		return n, false
	}
	r.cut = true
	r.cutter.cutting.Add(1)
	return r.left, true
}

// end cuts the connection, in one of the ways.
func (r *cutRelay) end() {
	defer r.cutter.cutting.Done()
	r.mu.Lock()
	kind := cutKind(r.rng.IntN(int(cutForever)))
	pause := time.Duration(r.rng.IntN(1000)) * time.Millisecond
	if r.rng.IntN(40) == 0 {
		kind = cutForever
	}
	r.mu.Unlock()
	r.cutter.cuts[kind].Add(1)
	switch kind {
	case cutEnd:
		r.in.CloseWrite()
		r.out.CloseWrite()
	case cutHalf:
		r.in.CloseWrite()
		time.Sleep(pause / 10)
	case cutStall:
		time.Sleep(pause)
	case cutForever:
		// The proxy has to notice: it goes first.
		r.in.SetReadDeadline(time.Now().Add(time.Minute))
		io.Copy(io.Discard, r.in)
	case cutReset, cutKinds:
	}
	r.in.SetLinger(0)
	r.out.SetLinger(0)
	r.in.Close()
	r.out.Close()
}

// TestSoakRandomCuts cuts upstream connections at random places under load,
// and drains one target after the other meanwhile.
func TestSoakRandomCuts(t *testing.T) {
	for _, l := range []lives{
		{name: "relay", sizes: medium, fragments: 3, clients: 30, soaking: 200},
		{name: "deflate", sizes: medium, deflate: true, clients: 15, soaking: 100},
		{name: "message", route: "handlers: [pass]", sizes: medium, fragments: 3, clients: 15, soaking: 100},
		{name: "terminate", route: "compression: terminate", sizes: medium, deflate: true, clients: 15, soaking: 100},
		{name: "small whole", route: "continuity: {whole: 100, hold: 60s, max_restarts: 1000000, backoff: {min: 1ms, max: 50ms}}", sizes: small, fragments: 2, clients: 30, soaking: 200, mayBreak: true},
	} {
		t.Run(l.name, func(t *testing.T) {
			if soak(t) == 0 && !raceDetector {
				t.Parallel()
			}
			l.cut(t)
		})
	}
}

func (l *lives) cut(t *testing.T) {
	length := 2 * time.Second
	if d := soak(t); d > 0 {
		l.clients, length = l.soaking, d/5
	}
	push, every := 50*time.Millisecond, 20*time.Millisecond
	if raceDetector { // everything takes ten times as long
		l.clients = max(5, l.clients/4)
		push, every = 10*push, 10*every
	}
	seed := rand.Uint64()
	if told := os.Getenv("STENT_SEED"); told != "" {
		var err error
		if seed, err = strconv.ParseUint(told, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("STENT_SEED=%d", seed)

	ledger := testbackend.NewLedger()
	server := &testbackend.Server{Book: ledger.Add, Config: testbackend.Config{Push: push, Sizes: l.sizes,
		Fragments: l.fragments, Pause: time.Millisecond, Deflate: l.deflate}}
	srv := httptest.NewServer(server)
	t.Cleanup(func() {
		server.Close(1001, "")
		srv.Close()
	})
	mean := 40_000
	if l.mayBreak {
		mean = 4000
	}
	backend := srv.Listener.Addr().String()
	cutters := []*cutter{newCutter(t, backend, seed, mean), newCutter(t, backend, seed+1, mean)}

	route := l.route
	if !strings.Contains(route, "continuity:") {
		route = lines(route, "continuity: {hold: 60s, max_restarts: 1000000, backoff: {min: 1ms, max: 50ms}}")
	}
	p, logs := launch(t, fmt.Sprintf(`listeners: [{address: "127.0.0.1:0"}]
admin: {address: "off"}
shutdown: {drain: 2s}
routes:
  - path: /*
    upstream: app
    keepalive: {interval: 1s, timeout: 5s}
    %s
upstreams: {app: {targets: [{name: a, url: "ws://%s"}, {name: b, url: "ws://%s"}]}}
`, strings.ReplaceAll(route, "\n", "\n    "), cutters[0].listen.Addr(), cutters[1].listen.Addr()), testHandlers)

	s := newSwarm(t, ledger)
	s.join(l.clients, "ws://"+p.Addrs()[0].String(), testbackend.ClientConfig{Every: every, Sizes: l.sizes,
		Fragments: l.fragments, Pause: time.Millisecond, Deflate: l.deflate})
	s.rest("connected")
	for _, c := range cutters {
		c.enrage()
	}
	targets, drained := []string{"a", "b"}, 0
	for from := time.Now(); time.Since(from) < length; {
		name := targets[drained%2]
		drained++
		if err := p.Pools().Drain("app", name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := p.Pools().Undrain("app", name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	var cuts []string
	for _, c := range cutters {
		c.calm()
		for kind := range cutKinds {
			cuts = append(cuts, fmt.Sprintf("%d %v", c.cuts[kind].Load(), kind))
		}
	}
	t.Logf("cuts: %s; %d drains", strings.Join(cuts, ", "), drained)
	// A silence takes as long as the keepalive to be noticed.
	s.during("cut under load", 7*time.Second, func() {})
	if l.mayBreak {
		s.explain(logs)
	}
	s.cutOff = true
	s.check()
}

// A cutter that is not angry passes everything, and an angry one cuts.
func TestCutter(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<20)) }))
	defer srv.Close()
	c := newCutter(t, srv.Listener.Addr().String(), 1, 1000)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	get := func() (err error) {
		resp, err := client.Get("http://" + c.listen.Addr().String())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		n, err := resp.Body.Read(make([]byte, 1))
		for err == nil {
			var k int
			k, err = resp.Body.Read(make([]byte, 64<<10))
			n += k
		}
		if n != 1<<20 {
			return errors.New("cut")
		}
		return nil
	}
	if err := get(); err != nil {
		t.Errorf("calm: %v", err)
	}
	c.enrage()
	if err := get(); err == nil {
		t.Error("angry, and nothing is cut")
	}
}
