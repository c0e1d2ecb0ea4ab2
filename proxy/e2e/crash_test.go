package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// TestServerKilled: the server's process is killed under its sessions; each
// client is told 1012 and a new one gets 502.
func TestServerKilled(t *testing.T) {
	gate(t)
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			s := serverKindNamed(t, "node-ws").start(t)
			front := w.front(t, s.address, "")
			var conns []*wire.Conn
			for range 20 {
				conn, err := wire.Dial(front, wire.Hello(front, "/greet"))
				if err != nil {
					t.Fatal(err)
				}
				if f, err := conn.Next(); err != nil || f.String() != `text "welcome"` {
					t.Fatalf("the greeting is %v, %v", f, err)
				}
				conns = append(conns, conn)
			}
			s.child.kill()
			for i, conn := range conns {
				if row := conn.Rest(); !likes([]string{"close 1012", "end"}, row) {
					t.Errorf("client %d sees %q", i, row)
				}
			}
			refusingUpstream{status: 502}.check(t, front, "/echo")
		})
	}
}

// TestClientKilled: the client's process is killed; its server is told 1001.
func TestClientKilled(t *testing.T) {
	gate(t)
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			s := serverKindNamed(t, "go-gorilla").start(t)
			front := w.front(t, s.address, "")
			cmd := node(t, "hold.mjs", "ws://"+front+"/echo?k=held")
			held := make(chan struct{})
			c := start(t, cmd, func([]byte) { close(held) })
			select {
			case <-held:
			case <-time.After(10 * time.Second):
				t.Fatal("the client never opened its session")
			}
			c.kill()
			if got := reportsUntilClose(s.reports, "held"); !likes([]string{"close 1001"}, got) {
				t.Errorf("the server saw %q", got)
			}
		})
	}
}

// TestDrain: SIGTERM closes every client with 1012 and every upstream with
// 1001, refuses new ones, and ends the process cleanly.
func TestDrain(t *testing.T) {
	gate(t)
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			const n = 50
			saw := make(chan []string, n)
			up := listen(t, func(c *wire.Conn) {
				if c.Open() == nil {
					saw <- c.Rest()
				}
			})
			s := startStent(t, w.config(up, ""))
			var conns []*wire.Conn
			for range n {
				conn, err := wire.Dial(s.address, wire.Hello(s.address, "/"))
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			if err := s.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for i, conn := range conns {
				if row := conn.Rest(); !likes([]string{"close 1012", "end"}, row) {
					t.Errorf("client %d sees %q", i, row)
				}
				if row := <-saw; !likes([]string{"close 1001", "end"}, row) {
					t.Errorf("a server sees %q", row)
				}
			}
			select {
			case <-s.child.done:
			case <-time.After(5 * time.Second):
				t.Error("stent still runs long after its drain")
			}
		})
	}
}
