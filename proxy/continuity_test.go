package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/relay"
	"github.com/stentproxy/stent/proxy/testbackend"
)

// soak returns how long each soak test runs where STENT_SOAK asks for them
// at full size, as `make soak` does, and 0 otherwise.
func soak(t *testing.T) time.Duration {
	t.Helper()
	told := os.Getenv("STENT_SOAK")
	switch told {
	case "":
		return 0
	case "1":
		return 5 * time.Minute
	}
	d, err := time.ParseDuration(told)
	if err != nil {
		t.Fatalf("STENT_SOAK: %v", err)
	}
	return d
}

// launch runs a proxy that logs from Info on to what it returns, without
// printing: thousands of sessions say too much. Prepare changes the proxy
// before it runs.
func launch(t *testing.T, yaml string, handlers map[string]NewHandler, prepare ...func(*Proxy)) (*Proxy, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg, err := config.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{Log: zap.New(core), Handlers: handlers})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		f(p)
	}
	if err := p.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if n := len(logs.FilterMessage("session closed").FilterField(zap.String("cause", "internal error")).All()); n > 0 {
			t.Errorf("%d sessions ended by an internal error", n)
		}
	})
	return p, logs
}

// address returns where a backend may listen, again and again: a port below
// those that the system gives to connections, or a socket in a directory.
func address(t *testing.T, network string) (addr, target string) {
	t.Helper()
	if network == "unix" {
		dir, err := os.MkdirTemp("", "stent") // t.TempDir's path is too long for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		addr = filepath.Join(dir, "backend.sock")
		return addr, "unix:" + addr
	}
	for range 100 {
		addr = fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr, "ws://" + addr
		}
	}
	t.Fatal("no port is free")
	return "", ""
}

// site is a place for one backend process after another.
type site struct {
	t               *testing.T
	config          testbackend.Config
	ledger          *testbackend.Ledger
	network, listen string
	process         *testbackend.Process
}

func (b *site) start() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	var err error
	if b.process, err = testbackend.Start(ctx, b.config, b.network, b.listen, b.ledger); err != nil {
		b.t.Fatal(err)
	}
}

func (b *site) kill() {
	if b.process != nil {
		b.process.Kill()
		b.process = nil
	}
}

func (b *site) stop() {
	b.process.Stop()
	b.process = nil
}

// swarm is many clients.
type swarm struct {
	t       *testing.T
	ledger  *testbackend.Ledger
	clients []*testbackend.Client
	gone    map[uint32]bool // those whose end is explained
	cutOff  bool            // upstream connections were, so that no end was polite
	started int
	late    lateness
	resting time.Duration // how long an answer took when nothing had happened
}

// newSwarm returns a swarm without clients.
func newSwarm(t *testing.T, ledger *testbackend.Ledger) *swarm {
	s := &swarm{t: t, ledger: ledger, gone: make(map[uint32]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { s.late.watch(ctx) })
	t.Cleanup(func() { cancel(); watch.Wait() })
	return s
}

// join connects n more clients, a few at a time.
func (s *swarm) join(n int, url string, c testbackend.ClientConfig) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var dialling sync.WaitGroup
	places := make(chan struct{}, 16)
	for range n {
		s.started++
		id := uint32(s.started)
		dialling.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			cl, err := testbackend.Dial(ctx, url, id, c)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.t.Error(err)
				return
			}
			s.clients = append(s.clients, cl)
		})
	}
	dialling.Wait()
	s.t.Cleanup(func() { s.close() })
	if s.t.Failed() {
		s.t.FailNow()
	}
}

func (s *swarm) close() {
	var closing sync.WaitGroup
	for _, c := range s.clients {
		closing.Go(func() { c.Close() })
	}
	closing.Wait()
}

// alive are the clients that are still connected.
func (s *swarm) alive() []*testbackend.Client {
	return slices.DeleteFunc(slices.Clone(s.clients), func(c *testbackend.Client) bool { _, ended := c.Ended(); return ended })
}

// rest waits until every client has had an answer. Nothing has happened to
// them, so that what it takes is the machine's own.
func (s *swarm) rest(name string) {
	s.t.Helper()
	s.resting = 0
	s.resting, _ = s.flow(name, 0, func() {})
}

// during runs what and waits until every client has had an answer to
// something that it said after that, which has to be within a second of what
// is allowed.
func (s *swarm) during(name string, allowed time.Duration, what func()) {
	s.t.Helper()
	worst, bound := s.flow(name, allowed, what)
	if worst > bound && !raceDetector { // which is no clock
		s.t.Errorf("%s: the slowest session flows again after %v, want %v at most", name, worst, bound)
	}
}

// flow runs what and returns after how long every client has had an answer to
// something that it said after that, and what is allowed on this machine. A
// client that gets no answer to anything is stuck.
func (s *swarm) flow(name string, allowed time.Duration, what func()) (worst, bound time.Duration) {
	s.t.Helper()
	what()
	s.late.forget()
	from := time.Now()
	alive := s.alive()
	var pace time.Duration
	for _, c := range alive {
		c.Mark()
		pace = max(pace, c.Pace())
	}
	var took []time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, c := range alive {
		acked, moved := c.Acked(), time.Now()
		for {
			if at, ok := c.Flowing(); ok {
				took = append(took, at.Sub(from))
				break
			}
			if _, ended := c.Ended(); ended {
				break
			}
			if n := c.Acked(); n != acked {
				acked, moved = n, time.Now()
			}
			if time.Since(moved) > allowed+s.lag()+patience {
				s.t.Fatalf("%s: client %d is stuck: sent %d, answered %d", name, c.ID, c.Sent(), c.Acked())
			}
			<-tick.C
		}
	}
	if len(took) == 0 {
		return 0, 0
	}
	bound = allowed + s.lag() + pace
	slices.Sort(took)
	worst = took[len(took)-1]
	s.t.Logf("%-24s %d sessions flow again after %v (median %v, bound %v)", name, len(took),
		worst.Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), bound.Round(time.Millisecond))
	return worst, bound
}

// check fails where a client was disconnected, or where a message is torn,
// out of order or there twice, and tells what was lost.
func (s *swarm) check() {
	s.t.Helper()
	got := make(map[uint32]map[uint32]uint32)
	var sent, lost, upstreams int
	ended := 0
	for _, c := range s.clients {
		if s.gone[c.ID] {
			continue
		}
		if err, ended1 := c.Ended(); ended1 {
			if ended++; ended <= 5 {
				s.t.Errorf("client %d was disconnected: %v", c.ID, err)
			}
		}
		c.Quiet()
	}
	s.settle()
	for _, c := range s.clients {
		for _, fault := range c.Faults() {
			s.t.Error(fault)
		}
		if !s.gone[c.ID] && !s.cutOff {
			got[c.ID] = c.Got()
		}
		sent += int(c.Sent())
		lost += s.ledger.Lost(c.ID)
		upstreams += s.ledger.Attempts(c.ID)
	}
	for _, fault := range s.ledger.Faults(got) {
		s.t.Error(fault)
	}
	s.t.Logf("%d clients, %d disconnected, sent %d messages, %d lost, over %d upstream connections",
		len(s.clients), ended+len(s.gone), sent, lost, upstreams)
}

// settle waits until every living client's last message is answered.
func (s *swarm) settle() {
	s.t.Helper()
	for _, c := range s.alive() {
		acked, moved := c.Acked(), time.Now()
		for c.Acked() < c.Sent() {
			if _, ended := c.Ended(); ended {
				break
			}
			if n := c.Acked(); n != acked {
				acked, moved = n, time.Now()
			}
			if time.Since(moved) > patience {
				s.t.Errorf("client %d: last message %d, last answer %d", c.ID, c.Sent(), c.Acked())
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// lag is the second that a session has beside what backoff and redial_rate
// allow, and more where the machine itself is late, or the backends' processes.
func (s *swarm) lag() time.Duration { return time.Second + 10*s.late.worst() + 3*s.resting }

// lateness is how late this process is to do what is due.
type lateness struct {
	mu  sync.Mutex
	max time.Duration
}

// watch measures until ctx ends.
func (l *lateness) watch(ctx context.Context) {
	const every = 10 * time.Millisecond
	for {
		due := time.Now().Add(every)
		if !sleep(ctx, every) {
			return
		}
		l.mu.Lock()
		l.max = max(l.max, time.Since(due))
		l.mu.Unlock()
	}
}

// worst is the longest lateness since the last forget.
func (l *lateness) worst() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.max
}

func (l *lateness) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = 0
}

// longestPause bounds the pause that a session may be in when its upstreams
// come back after a while: the pauses double from min, so that the last is
// about as long as all before it, and jitter spreads them by a half.
func longestPause(c config.Backoff, down time.Duration) time.Duration {
	low, high := 1-c.Jitter, 1+c.Jitter
	pause := time.Duration(float64(down)/low) + c.Min.Std()
	return time.Duration(float64(min(pause, c.Max.Std())) * high)
}

// lives is one way for the frames that all that happens to backends is
// played over.
type lives struct {
	name      string
	route     string // keys of the route
	network   string // of the backends; "" is tcp
	tls       bool   // of the clients' side
	deflate   bool   // offered and agreed to
	sizes     []int  // of messages, both ways
	fragments int    // of each of them, sent with pauses between
	pause     time.Duration
	mayBreak  bool // messages larger than whole may end sessions
	clients   int
	soaking   int // clients at full size
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

var (
	small  = []int{36, 100, 200, 1000}
	medium = []int{36, 300, 4 * kib, 60 * kib}
	large  = []int{36, 300, 100 * kib, mib}
)

func TestSoakBackendsComeAndGo(t *testing.T) {
	for _, l := range []lives{
		{name: "relay", sizes: small, clients: 200, soaking: 2000},
		{name: "fragments", sizes: medium, fragments: 5, clients: 30, soaking: 300},
		{name: "whole 2MiB", route: "continuity: {whole: 2MiB}", sizes: large, soaking: 40},
		{name: "whole 2MiB in fragments", route: "continuity: {whole: 2MiB}", sizes: large, fragments: 7, clients: 10, soaking: 40},
		{name: "default whole", sizes: large[2:], fragments: 4, pause: 20 * time.Millisecond, clients: 20, soaking: 80, mayBreak: true},
		{name: "tls", tls: true, sizes: medium, fragments: 2, clients: 30, soaking: 500},
		{name: "unix", network: "unix", sizes: medium, clients: 30, soaking: 500},
		{name: "deflate", sizes: medium, deflate: true, clients: 30, soaking: 300},
		{name: "deflate in fragments", sizes: medium, fragments: 3, deflate: true, soaking: 200},
		{name: "message", route: "handlers: [pass]", sizes: medium, fragments: 3, clients: 30, soaking: 500},
		{name: "message of 1MiB", route: "handlers: [pass]", sizes: large, fragments: 3, clients: 10, soaking: 40},
		{name: "message tls", route: "handlers: [pass]", tls: true, sizes: medium, soaking: 200},
		{name: "terminate", route: "compression: terminate", sizes: medium, fragments: 3, deflate: true, clients: 30, soaking: 300},
	} {
		t.Run(l.name, func(t *testing.T) {
			if soak(t) > 0 {
				l.clients = l.soaking
			} else if t.Parallel(); l.clients == 0 {
				t.Skip("only at full size")
			}
			l.play(t)
		})
	}
}

func (l *lives) play(t *testing.T) {
	outage := 500 * time.Millisecond
	if soak(t) > 0 {
		outage = 5 * time.Second
	}
	if l.network == "" {
		l.network = "tcp"
	}
	if l.pause == 0 {
		l.pause = 5 * time.Millisecond
	}
	every := 100 * time.Millisecond
	if slices.Max(l.sizes) > 100*kib {
		every *= 3
	}
	if raceDetector {
		every *= 4
		l.clients = max(5, l.clients/6)
	}
	clientConfig := testbackend.ClientConfig{Every: every, Sizes: l.sizes,
		Fragments: l.fragments, Pause: l.pause, Deflate: l.deflate}
	backendConfig := testbackend.Config{Push: 2 * every, Sizes: l.sizes,
		Fragments: l.fragments, Pause: l.pause, Deflate: l.deflate}
	ledger := testbackend.NewLedger()
	var backends [2]*site
	var targets [2]string
	for i := range backends {
		b := &site{t: t, config: backendConfig, ledger: ledger, network: l.network}
		b.listen, targets[i] = address(t, l.network)
		b.start()
		t.Cleanup(b.kill)
		backends[i] = b
	}
	a, b := backends[0], backends[1]

	route := l.route
	if !strings.Contains(route, "continuity:") {
		route = lines(route, "continuity: {}")
	}
	listener, scheme := `{address: "127.0.0.1:0"}`, "ws"
	if l.tls {
		c := certify(t, t.TempDir(), "127.0.0.1")
		listener = fmt.Sprintf(`{address: "127.0.0.1:0", tls: {certificates: [{cert: %q, key: %q}]}}`, c.Cert, c.Key)
		scheme = "wss"
		clientConfig.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		t.Cleanup(clientConfig.HTTP.CloseIdleConnections)
	}
	p, logs := launch(t, fmt.Sprintf(`listeners: [%s]
admin: {address: "off"}
shutdown: {drain: 2s}
routes:
  - path: /*
    upstream: app
    %s
upstreams: {app: {targets: [{name: a, url: %q}, {name: b, url: %q}], dial: {timeout: 20s}}}
`, listener, strings.ReplaceAll(route, "\n", "\n    "), targets[0], targets[1]), testHandlers)

	s := newSwarm(t, ledger)
	s.join(l.clients, scheme+"://"+p.Addrs()[0].String(), clientConfig)
	backoff := p.Config().Routes[0].Continuity.Backoff
	atOnce := longestPause(backoff, 0)
	s.rest("connected")
	s.during("kill -9 of one", atOnce, a.kill)
	a.start()
	s.during("kill -9 of the other", atOnce, b.kill)
	b.start()
	s.during("kill -9 of both", longestPause(backoff, outage), func() {
		a.kill()
		b.kill()
		time.Sleep(outage)
		a.start()
		b.start()
	})
	if l.mayBreak {
		s.explain(logs)
	}
	before := s.lost()
	for _, b := range backends {
		s.during("rolling restart", atOnce, b.stop)
		b.start()
	}
	// A drain loses nothing: both sides are read to their ends.
	s.rest("at rest")
	t.Logf("the rolling restart lost %d messages", s.lost()-before)
	before = s.lost()
	s.during("drain", time.Duration(l.clients)*time.Second/200, func() {
		if err := p.Pools().Drain("app", "a"); err != nil {
			t.Fatal(err)
		}
		s.waitEmpty(p, "a")
	})
	if l.mayBreak {
		s.explain(logs)
		if len(s.gone) == 0 {
			t.Log("nobody was inside a large message")
		}
	}
	s.check()
	if drained := s.lost() - before; drained > 0 && !l.mayBreak {
		t.Errorf("the drain lost %d messages", drained)
	}
}

// lost counts the messages that no backend has got, but for those that are
// under way.
func (s *swarm) lost() int {
	lost := 0
	for _, c := range s.clients {
		lost += s.ledger.Lost(c.ID)
	}
	return lost
}

// waitEmpty waits until no session is left on a target.
func (s *swarm) waitEmpty(p *Proxy, target string) {
	s.t.Helper()
	for left, moved := 0, time.Now(); ; {
		n := sessionsOn(p, "app")[target]
		if n == 0 {
			return
		}
		if n != left {
			left, moved = n, time.Now()
		}
		if time.Since(moved) > patience {
			s.t.Fatalf("%d sessions are left on %s", n, target)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sessionsOn counts a pool's sessions by target.
func sessionsOn(p *Proxy, pool string) map[string]int {
	n := make(map[string]int)
	for _, u := range p.Pools().Snapshot() {
		if u.Name == pool {
			for _, t := range u.Targets {
				n[t.Name] = t.Sessions
			}
		}
	}
	return n
}

// explain takes disconnected clients out of the count, if messages larger
// than whole have ended their sessions: by the two rows of the close table
// for those, and no other.
func (s *swarm) explain(logs *observer.ObservedLogs) {
	s.t.Helper()
	// A client is cut off before its session has ended and said so.
	ended := len(s.clients) - len(s.alive())
	closed := logs.FilterMessage("session closed")
	for deadline := time.Now().Add(patience); closed.Len() < ended && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		closed = logs.FilterMessage("session closed")
	}
	causes := make(map[string]int)
	for _, line := range closed.All() {
		causes[line.ContextMap()["cause"].(string)]++
	}
	aborted, restarted := 0, 0
	for _, c := range s.clients {
		err, ended := c.Ended()
		if !ended {
			continue
		}
		s.gone[c.ID] = true
		switch code := websocket.CloseStatus(err); code {
		case -1:
			aborted++
		case websocket.StatusServiceRestart:
			restarted++
		default:
			s.t.Errorf("client %d got %v", c.ID, err)
		}
	}
	s.t.Logf("messages larger than whole have ended sessions: %v", causes)
	if aborted != causes[relay.UpstreamTorn.String()] || restarted != causes[relay.ClientTorn.String()] || len(causes) > 2 {
		s.t.Errorf("%d clients were cut off and %d got 1012, but sessions ended by %v", aborted, restarted, causes)
	}
}
