package upstream

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/config"
)

// answering answers every request with the status that it points to.
func answering(status *atomic.Value, asked *[]string) script {
	return func(c net.Conn, req *http.Request) {
		if asked != nil {
			*asked = append(*asked, req.Method+" "+req.RequestURI+" "+req.Host)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 "+status.Load().(string)+"\r\nContent-Length: 2\r\n\r\nhi")
	}
}

func TestHealthFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		var status atomic.Value
		var asked []string
		status.Store("200 OK")
		n.set("10.0.0.1:80", answering(&status, &asked))
		pools := NewPools(n.options())
		h := config.Health{Path: "/healthz?x", Interval: milliseconds(1000), Timeout: milliseconds(100), Healthy: 2, Unhealthy: 3}
		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1/app")))
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Up {
			t.Errorf("before the first check: %v, want up", got)
		}
		stop := serve(t, pools)
		synctest.Wait()

		// One check a second, give or take a tenth.
		step := func(s string, want State) {
			t.Helper()
			status.Store(s)
			before := n.dialled("10.0.0.1:80")
			for n.dialled("10.0.0.1:80") == before {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
			if got := targetNamed(t, pools, "10.0.0.1:80").State; got != want {
				t.Errorf("after %s: %v, want %v", s, got, want)
			}
		}
		step("500 Bad", Up)
		step("500 Bad", Up)
		step("204 Fine", Up) // the row is broken
		step("500 Bad", Up)
		step("404 Bad", Up)
		changed := pools.Changed()
		step("500 Bad", Down)
		select {
		case <-changed:
		default:
			t.Error("a target went down and nobody was told")
		}
		step("200 OK", Down)
		step("500 Bad", Down)
		step("399 Fine", Down)
		step("302 Found", Up)
		stop()
		if want := "GET /healthz?x 10.0.0.1"; asked[0] != want || slices.ContainsFunc(asked, func(s string) bool { return s != want }) {
			t.Errorf("asked %q, want %q", asked[0], want)
		}
		if got := targetNamed(t, pools, "10.0.0.1:80"); got.Dials != 0 || got.Failures != 0 {
			t.Errorf("checks were counted as dials: %+v", got)
		}
	})
}

// TestHealthFirstCheckDecides starts with a dead target and one that hangs:
// both are known after one check.
func TestHealthFirstCheckDecides(t *testing.T) {
	for _, ws := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newFakeNet()
			n.set("10.0.0.2:80", silent)
			n.set("10.0.0.3:80", say("no HTTP at all\r\n"))
			pools := NewPools(n.options())
			h := config.DefaultHealth()
			h.WebSocket = ws
			update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1", "ws://10.0.0.2", "ws://10.0.0.3")))
			serve(t, pools)
			time.Sleep(h.Timeout.Std() + time.Millisecond)
			synctest.Wait()
			for _, name := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"} {
				if got := targetNamed(t, pools, name).State; got != Down {
					t.Errorf("%s is %v, want down", name, got)
				}
			}
		})
	}
}

// TestHealthWebSocket checks the whole walk of a WebSocket check: handshake,
// Close 1000, and the peer's word waited for.
func TestHealthWebSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		var closes atomic.Int64
		n.set("10.0.0.1:80", func(c net.Conn, req *http.Request) {
			if req.RequestURI != "/socket" {
				t.Errorf("asked for %s", req.RequestURI)
			}
			_, _ = io.WriteString(c, accept(req, ""))
			frame := make([]byte, 8)
			if _, err := io.ReadFull(c, frame); err != nil || string(frame) != "\x88\x82\x00\x00\x00\x00\x03\xe8" {
				t.Errorf("got %x, %v; want a masked Close 1000", frame, err)
			}
			if _, err := io.WriteString(c, "\x88\x02\x03\xe8"); err == nil {
				closes.Add(1)
			}
		})
		n.set("10.0.0.2:80", say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		n.set("10.0.0.3:80", func(c net.Conn, req *http.Request) { // never says goodbye
			_, _ = io.WriteString(c, accept(req, ""))
			silent(c, req)
		})
		pools := NewPools(n.options())
		h := config.DefaultHealth()
		h.Path, h.WebSocket = "/socket", true
		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1", "ws://10.0.0.2", "ws://10.0.0.3")))
		serve(t, pools)
		time.Sleep(time.Minute)
		synctest.Wait()
		for name, want := range map[string]State{"10.0.0.1:80": Up, "10.0.0.2:80": Down, "10.0.0.3:80": Up} {
			if got := targetNamed(t, pools, name).State; got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if got, want := closes.Load(), int64(n.dialled("10.0.0.1:80")); got < 10 || got != want {
			t.Errorf("%d closes after %d checks", got, want)
		}
	})
}

// TestHealthFollowsTheConfig takes targets and the check itself away and
// brings them back while Serve runs.
func TestHealthFollowsTheConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		pools := NewPools(n.options())
		h := config.DefaultHealth()
		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1")))
		stop := serve(t, pools)
		synctest.Wait()
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Down {
			t.Fatalf("%v, want down", got)
		}

		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.2", "ws://10.0.0.1")))
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Down {
			t.Errorf("after a reload: %v, want down still", got)
		}
		synctest.Wait()
		if got := targetNamed(t, pools, "10.0.0.2:80").State; got != Down {
			t.Errorf("a new target: %v, want down", got)
		}

		update(t, pools, upstreamOf("ws://10.0.0.1"))
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Up {
			t.Errorf("without checks: %v, want up", got)
		}
		synctest.Wait()
		before := n.dialled("10.0.0.1:80")
		time.Sleep(time.Minute)
		synctest.Wait()
		if after := n.dialled("10.0.0.1:80"); after != before {
			t.Errorf("%d checks although they are off", after-before)
		}

		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1")))
		synctest.Wait()
		stop()
		if err := serveAgain(t, pools); err != nil {
			t.Error(err)
		}
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Down {
			t.Errorf("with checks again: %v, want down", got)
		}
	})
}

// TestHealthCheckCutShort changes the check while one is under way: what was
// cut short says nothing of the target.
func TestHealthCheckCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.set("10.0.0.1:80", func(c net.Conn, req *http.Request) {
			if req.RequestURI == "/new" {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				return
			}
			silent(c, req)
		})
		pools := NewPools(n.options())
		h := config.DefaultHealth()
		h.Path = "/old"
		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1")))
		serve(t, pools)
		synctest.Wait()
		h.Path = "/new"
		update(t, pools, healthy(h, upstreamOf("ws://10.0.0.1")))
		synctest.Wait()
		if got := targetNamed(t, pools, "10.0.0.1:80").State; got != Up {
			t.Errorf("%v, want up", got)
		}
	})
}

// serveAgain runs Serve once more, as the supervisor does after a fault.
func serveAgain(t *testing.T, p *Pools) error {
	stop := serve(t, p)
	time.Sleep(time.Second)
	synctest.Wait()
	stop()
	return nil
}
