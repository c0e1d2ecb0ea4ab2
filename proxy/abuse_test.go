package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// fortress is a proxy under abuse, with clients that mean well.
type fortress struct {
	*crowd
	plain, secure string
}

func newFortress(t *testing.T, timeout time.Duration) *fortress {
	t.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fortress{crowd: &crowd{t: t, target: target}}
	f.serves.Go(f.accept)
	t.Cleanup(func() { target.Close(); f.serves.Wait() })
	pair := certify(t, t.TempDir(), "stent.test")
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `
listeners:
  - address: "127.0.0.1:0"
  - address: "127.0.0.1:0"
    tls: {certificates: [{cert: %q, key: %q}]}
admin: {address: "off"}
shutdown: {drain: 1s}
limits: {handshake_timeout: %s}
routes:
  - {path: /relay, upstream: app, http: true}
  - {path: /bomb, upstream: app, compression: terminate, limits: {message_size: 64KiB}}
upstreams: {app: {targets: ["ws://%s"]}}
`, pair.Cert, pair.Key, timeout, target.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	if f.proxy, err = New(cfg, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := f.proxy.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.proxy.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	addrs := f.proxy.Addrs()
	f.plain, f.secure = addrs[0].String(), addrs[1].String()
	return f
}

// reach connects from one of several addresses: one has too few ports for
// what is about to come. It returns nil when that can't be done.
func (f *fortress) reach(address string, n int) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%8))}, Timeout: patience}
	c, err := d.Dial("tcp", address)
	if err != nil {
		f.t.Errorf("dial: %v", err)
		return nil
	}
	c.SetDeadline(time.Now().Add(3 * patience))
	c.(*net.TCPConn).SetLinger(0) // no port stays taken
	return c
}

// paced does n things over a time, some at once.
func paced(n, width int, over time.Duration, do func(i int)) {
	var all sync.WaitGroup
	turns := make(chan int)
	for range width {
		all.Go(func() {
			for i := range turns {
				do(i)
			}
		})
	}
	start := time.Now()
	for i := range n {
		time.Sleep(time.Until(start.Add(over * time.Duration(i) / time.Duration(n))))
		turns <- i
	}
	close(turns)
	all.Wait()
}

// An abuse is what n clients do to a proxy over a time; all of it must have
// ended, as it should, when it returns.
type abuse struct {
	name string
	n    int
	do   func(f *fortress, n int, over time.Duration)
	// atOnce says that all n are there at once, in every round.
	atOnce bool
}

// gather has n goroutines alive at once.
func gather(n int) {
	var all sync.WaitGroup
	leave := make(chan struct{})
	for range n {
		all.Go(func() { <-leave })
	}
	close(leave)
	all.Wait()
}

var abuses = []abuse{
	{name: "slow headers", n: 1000, do: slowHeaders, atOnce: true},
	{name: "handshakes that never finish", n: 5000, do: unfinishedHandshakes, atOnce: true},
	{name: "malformed requests", n: 100_000, do: malformedRequests},
	{name: "compression bombs", n: 500, do: compressionBombs},
	{name: "headers that are too large", n: 2000, do: largeHeaders},
	{name: "short sessions", n: 10_000, do: shortSessions},
}

// slowHeaders sends a header a byte at a time, until it is cut off.
func slowHeaders(f *fortress, n int, over time.Duration) {
	paced(n, n, min(over, time.Second), func(i int) {
		c := f.reach(f.plain, i)
		if c == nil {
			return
		}
		defer c.Close()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if _, err := io.Copy(io.Discard, c); ending(orEOF(err)) == "silence" {
				f.t.Error("a slow header was not cut off")
			}
		}()
		io.WriteString(c, "GET /relay HTTP/1.1\r\nHost: stent.test\r\nX-Slow: ")
		for {
			select {
			case <-gone:
				return
			case <-time.After(100 * time.Millisecond):
				io.WriteString(c, "a")
			}
		}
	})
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// unfinishedHandshakes begins TLS, or not even that, and stays.
func unfinishedHandshakes(f *fortress, n int, over time.Duration) {
	paced(n, n, min(over, time.Second), func(i int) {
		c := f.reach(f.secure, i)
		if c == nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[:i%12])
		if _, err := io.Copy(io.Discard, c); ending(orEOF(err)) == "silence" {
			f.t.Error("an unfinished handshake was not cut off")
		}
	})
}

// malformed are requests that are refused.
var malformed = []string{
	"\x16\x03\x01\x00\x05hello\r\n\r\n",
	"GET /relay HTTP/1.1\r\n\r\n",
	"GET /relay HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET /relay HTTP/1.1\r\nHost: a:b\r\n\r\n",
	"GET /../relay HTTP/1.1\r\nHost: stent.test\r\n\r\n",
	"GET /relay HTTP/1.1\r\nHost: stent.test\r\nX : y\r\n\r\n",
	"GET /relay HTTP/1.1\r\nHost: stent.test\r\nX: \x00\r\n\r\n",
	"POST /relay HTTP/1.1\r\nHost: stent.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	"POST /relay HTTP/1.1\r\nHost: stent.test\r\nTransfer-Encoding: x\r\n\r\n",
	"CONNECT /relay HTTP/1.1\r\nHost: stent.test\r\n\r\n",
	proxy1 + "GET /relay HTTP/1.1\r\nHost: stent.test\r\n\r\n",
	handshake("/relay", "Content-Length: 5") + "hello",
	handshake("/relay", "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="),
	strings.Repeat("\xff", 64) + "\r\n\r\n",
}

func malformedRequests(f *fortress, n int, over time.Duration) {
	paced(n, 64, over, func(i int) {
		c := f.reach(f.plain, i)
		if c == nil {
			return
		}
		defer c.Close()
		io.WriteString(c, malformed[i%len(malformed)])
		answer := make([]byte, len("HTTP/1.1 400"))
		if _, err := io.ReadFull(c, answer); err != nil || answer[9] != '4' && answer[9] != '5' {
			f.t.Errorf("request %q is answered %q, %v", malformed[i%len(malformed)], answer, err)
		}
	})
}

// largeHeaders sends more than limits.header_size.
func largeHeaders(f *fortress, n int, over time.Duration) {
	paced(n, 32, over, func(i int) {
		c := f.reach(f.plain, i)
		if c == nil {
			return
		}
		defer c.Close()
		size := 17<<10 + i%4*(256<<10)
		go io.WriteString(c, "GET /relay HTTP/1.1\r\nHost: stent.test\r\nX-Large: "+strings.Repeat("a", size)+"\r\n\r\n")
		answer := make([]byte, len("HTTP/1.1 431"))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 431" {
			f.t.Errorf("%d bytes of header are answered %q, %v", size, answer, err)
		}
	})
}

// bomb is a message of 64 KiB that would be 64 MiB.
var bomb = sync.OnceValue(func() sent { return deflated(make([]byte, 64<<20)) })

// compressionBombs sends them where messages are assembled.
func compressionBombs(f *fortress, n int, over time.Duration) {
	message := bomb()
	paced(n, 16, over, func(i int) {
		if w := f.session("/bomb", i, "Sec-WebSocket-Extensions: permessage-deflate"); w != nil {
			w.reply(message)
			w.await("close 1009 message too big")
			w.Close()
		}
	})
}

// shortSessions comes, says something, hears it and goes.
func shortSessions(f *fortress, n int, over time.Duration) {
	paced(n, 32, over, func(i int) {
		if w := f.session("/relay", i); w != nil {
			w.send(binary(100))
			w.await("binary 100B")
			w.send(closing(1000, ""))
			w.rest()
		}
	})
}

// session opens one, over TLS for every second client.
func (f *fortress) session(path string, i int, header ...string) *wire {
	address := f.plain
	if i%2 == 1 {
		address = f.secure
	}
	c := f.reach(address, i)
	if c == nil {
		return nil
	}
	if i%2 == 1 {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	w := newWire(f.t, c, true)
	io.WriteString(w, handshake(path, header...))
	w.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		f.t.Errorf("session not opened: %v, %v", resp, err)
		w.Close()
		return nil
	}
	return w
}

// guests are sessions that mean well: each says something every now and then
// and hears it back, without anything amiss.
type guests struct {
	stop  context.CancelFunc
	all   sync.WaitGroup
	mu    sync.Mutex
	times []time.Duration
}

func (f *fortress) invite(n int) *guests {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guests{stop: cancel}
	for i := range n {
		w := f.session("/relay", i)
		if w == nil {
			continue
		}
		g.all.Go(func() {
			for sleep(ctx, 20*time.Millisecond) {
				begun := time.Now()
				w.send(binary(100))
				w.await("binary 100B")
				g.mu.Lock()
				g.times = append(g.times, time.Since(begun))
				g.mu.Unlock()
			}
			w.send(closing(1000, "bye"))
			if events := w.rest(); !slices.Equal(events, []string{"close 1000 bye", "fin"}) {
				f.t.Errorf("a guest saw %q", events)
			}
		})
	}
	return g
}

// latency is that of the guests since it was last asked: the median and the
// 99th of a hundred.
func (g *guests) latency() (median, tail time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	times := g.times
	g.times = nil
	if len(times) == 0 {
		return 0, 0
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100]
}

// leave ends the guests' sessions.
func (g *guests) leave() {
	g.stop()
	g.all.Wait()
}

// TestSoakAbuse does to a proxy what the worst of clients do, each in turn,
// while others mean well. These see nothing of it, and nothing of it is left.
// Latency is judged in the long form only, against what it was right before.
func TestSoakAbuse(t *testing.T) {
	part, rounds, over, quiet, timeout := 100, 1, 300*time.Millisecond, 100*time.Millisecond, 2*time.Second
	long := soak(t)
	if long > 0 {
		part, rounds, over, quiet, timeout = 1, 5, max(long/time.Duration(len(abuses)+1), time.Minute), 10*time.Second, 3*time.Second
	}
	f := newFortress(t, timeout)
	for _, a := range abuses { // pools, metrics and tables are there after that
		a.do(f, max(a.n/part/10, 10), 100*time.Millisecond)
	}
	settled(t, f)
	// The runtime keeps what belongs to a goroutine for as many as there have
	// ever been: at each end of a connection one, and two for slow headers.
	gather(3 * 5000 / part)
	before := remain(t)

	// Quiet and abuse by turns tell what an abuse does from what else the
	// machine is busy with.
	g := f.invite(20)
	for _, a := range abuses {
		n := max(a.n/part/rounds, 10)
		if a.atOnce {
			n = a.n / part
		}
		was, is := make([]time.Duration, rounds), make([]time.Duration, rounds)
		var wasTail, isTail time.Duration
		worse, judged := 0, 0
		for i := range rounds {
			var tail time.Duration
			others := watchOthers()
			g.latency()
			sleep(t.Context(), quiet/time.Duration(rounds))
			was[i], tail = g.latency()
			wasTail = max(wasTail, tail)
			a.do(f, n, over/time.Duration(rounds))
			is[i], tail = g.latency()
			isTail = max(isTail, tail)
			if others() > disturbing {
				continue
			}
			judged++
			if is[i] > max(2*was[i], noticeable) {
				worse++
			}
		}
		t.Logf("%d %s: the guests' median was %v, is %v; the worst 99th of a hundred was %v, is %v", n*rounds, a.name, was, is, wasTail, isTail)
		switch {
		case long == 0 || raceDetector:
		case judged < rounds:
			t.Logf("%s: %d of %d rounds are not judged, others keep the machine busy", a.name, rounds-judged, rounds)
			fallthrough
		default:
			if worse > judged/2 {
				t.Errorf("%s: the guests' latency is more than doubled in %d of %d rounds", a.name, worse, judged)
			}
		}
	}
	g.leave()
	settled(t, f)

	const slack = 2 << 20 // what is kept for each client would be more
	var after remains
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		after = remain(t)
		if after.goroutines <= before.goroutines && after.files <= before.files && after.heap <= before.heap+slack || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("before %+v, after %+v", before, after)
	if after.goroutines > before.goroutines || after.files > before.files || after.heap > before.heap+slack {
		t.Errorf("left %+v, were %+v", after, before)
	}
}

// disturbing is the part of the machine's time that others may take in a
// round that is judged: where all of it is used up, anything doubles.
const disturbing = 0.25

// watchOthers returns what tells which part of the machine's time other
// processes have taken since.
func watchOthers() func() float64 {
	begun, busy, own := time.Now(), machineTime(), processTime()
	return func() float64 {
		all := time.Since(begun).Seconds() * float64(runtime.NumCPU())
		return (machineTime() - busy - (processTime() - own)) / all
	}
}

// machineTime is for how many seconds the processors have worked; 0 where the
// system does not say it as Linux does.
func machineTime() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	const ticks = 100 // a second
	sum := 0.0
	for i, field := range strings.Fields(strings.SplitN(string(text), "\n", 2)[0]) {
		if n, err := strconv.ParseFloat(field, 64); err == nil && i != 4 && i != 5 && i < 9 { // idle, waiting; guests count as users
			sum += n
		}
	}
	return sum / ticks
}

// processTime is for how many of them on our behalf.
func processTime() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// noticeable is a round trip that is not judged: below it, the machine that
// clients, proxy and backend share here decides.
const noticeable = time.Millisecond

// settled waits until all sessions are over.
func settled(t *testing.T, f *fortress) {
	t.Helper()
	select {
	case <-f.proxy.registry.emptied():
	case <-time.After(patience):
		t.Errorf("%d sessions are left", f.proxy.registry.len())
	}
}
