package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// stallKeys give up an end that takes no data.
const stallKeys = "    timeouts: {write: 500ms, close: 500ms}\n"

// TestClientStalled: a client that takes no data past timeouts.write is given
// up; its upstream is told 1001.
func TestClientStalled(t *testing.T) {
	gate(t)
	message := wire.Frame{Op: wire.Binary, Payload: play.Pattern(floodMessage)}
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			saw := make(chan []string, 1)
			up := listen(t, func(c *wire.Conn) {
				if c.Open() != nil {
					return
				}
				go func() {
					for c.Send(message) == nil {
					}
				}()
				saw <- c.UntilClose()
			})
			front := w.front(t, up, stallKeys)
			conn, err := wire.Dial(front, wire.Hello(front, "/"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			select {
			case row := <-saw:
				if !likes([]string{"close 1001"}, row) {
					t.Errorf("the server sees %q", row)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the server is told nothing")
			}
			row := conn.Rest()
			if last := row[len(row)-1]; !strings.HasPrefix(last, "fin") && !strings.HasPrefix(last, "rst") {
				t.Errorf("the client's end is %q", last)
			}
		})
	}
}

// TestUpstreamStalled: an upstream that takes no data past timeouts.write is
// lost: its client is told 1012.
func TestUpstreamStalled(t *testing.T) {
	gate(t)
	message := wire.Frame{Op: wire.Binary, Payload: play.Pattern(floodMessage)}.Masks()
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			done := make(chan struct{})
			up := listen(t, func(c *wire.Conn) {
				if c.Open() == nil {
					<-done
				}
			})
			front := w.front(t, up, stallKeys)
			conn, err := wire.Dial(front, wire.Hello(front, "/"))
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for conn.Send(message) == nil {
				}
			}()
			if row := conn.UntilClose(); !likes([]string{"close 1012"}, row) {
				t.Errorf("the client sees %q", row)
			}
			_ = conn.Close()
			<-sent
			close(done)
		})
	}
}
