package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
	"github.com/stentproxy/stent/proxy/e2e/wire"
)

const (
	floodMessage = 64 << 10
	flood        = 1024 // messages: 64 MiB, far more than sockets hold
)

// TestSlowReader: when one end reads nothing the other is stopped, stent's
// memory stays bounded, and once it reads again every byte is there.
func TestSlowReader(t *testing.T) {
	gate(t)
	message := wire.Frame{Op: wire.Binary, Payload: play.Pattern(floodMessage)}
	for _, w := range ways() {
		t.Run(string(w)+"/client", func(t *testing.T) {
			var sent atomic.Int64
			up := listen(t, func(c *wire.Conn) {
				if c.Open() != nil {
					return
				}
				_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
				for range flood {
					if c.Send(message) != nil {
						return
					}
					sent.Add(1)
				}
				_ = c.Send(plain(goodBy)...)
				_, _ = c.Next()
			})
			conn := slowly(t, w, up, &sent)
			defer conn.Close()
			for i := range flood {
				if f, err := conn.Next(); err != nil || f.String() != message.String() {
					t.Fatalf("message %d is %v, %v", i, f, err)
				}
			}
			if row := conn.Rest(); !likes([]string{"close 1000", "end"}, row) {
				t.Errorf("the end is %q", row)
			}
		})
		t.Run(string(w)+"/server", func(t *testing.T) {
			wake, done := make(chan struct{}), make(chan string, 1)
			up := listen(t, func(c *wire.Conn) {
				if c.Open() != nil {
					return
				}
				<-wake
				for i := range flood {
					if f, err := c.Next(); err != nil || f.String() != message.String() {
						done <- fmt.Sprintf("message %d is %v, %v", i, f, err)
						return
					}
				}
				done <- strings.Join(c.UntilClose(), ", ")
			})
			var sent atomic.Int64
			front, check := slowFront(t, w, up)
			conn, err := wire.Dial(front, wire.Hello(front, "/"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
			finished := make(chan error, 1)
			go func() {
				for range flood {
					if err := conn.Send(message.Masks()); err != nil {
						finished <- err
						return
					}
					sent.Add(1)
				}
				finished <- conn.Send(goodBy)
			}()
			stalls(t, &sent)
			check()
			close(wake)
			if err := <-finished; err != nil {
				t.Fatal(err)
			}
			conn.Mute = true
			if row := conn.Rest(); !likes([]string{"close 1000", "end"}, row) {
				t.Errorf("the client's end is %q", row)
			}
			if got := <-done; !strings.HasPrefix(got, "close 1000") {
				t.Error(got)
			}
		})
	}
}

// slowly connects a client that does not read until the server is stopped.
func slowly(t *testing.T, w way, up string, sent *atomic.Int64) *wire.Conn {
	t.Helper()
	front, check := slowFront(t, w, up)
	conn, err := wire.Dial(front, wire.Hello(front, "/"))
	if err != nil {
		t.Fatal(err)
	}
	stalls(t, sent)
	check()
	return conn
}

// slowFront opens w and returns a check of its memory.
func slowFront(t *testing.T, w way, up string) (front string, check func()) {
	t.Helper()
	if !w.stent() {
		return w.front(t, up, ""), func() {}
	}
	s := startStent(t, w.config(up, ""))
	before := s.resident(t)
	return s.address, func() {
		t.Helper()
		if grown := s.resident(t) - before; grown > 16<<20 {
			t.Errorf("stent grew by %d KiB for one stalled session", grown>>10)
		}
	}
}

// stalls returns when the sender has been stopped by backpressure.
func stalls(t *testing.T, sent *atomic.Int64) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); ; {
		<-tick.C
		now := sent.Load()
		if now == flood {
			t.Fatal("the sender was never stopped")
		}
		if now == last {
			return
		}
		last = now
	}
}

// resident returns stent's resident memory in bytes.
func (s *stent) resident(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.child.cmd.Process.Pid))
	if err != nil {
		t.Skipf("memory can't be read here: %v", err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
