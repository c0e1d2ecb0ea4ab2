package e2e

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// way is a way between a client and a server.
type way string

const (
	direct    way = "direct"
	tcp       way = "tcp"       // a relay of bytes: the harness's own check
	relay     way = "relay"     // stent, nothing reads messages
	rules     way = "rules"     // stent, a handler reads messages
	terminate way = "terminate" // stent, and both legs have their own compression
)

// stent reports whether stent is on the way.
func (w way) stent() bool { return w == relay || w == rules || w == terminate }

// messages reports whether messages are read on the way.
func (w way) messages() bool { return w == rules || w == terminate }

// ways are those that STENT_E2E_VIA asks for; direct, with which the others
// are compared, is always the first.
func ways() []way {
	all := []way{direct, tcp, relay, rules, terminate}
	env := os.Getenv("STENT_E2E_VIA")
	if env == "" {
		return all
	}
	wanted := strings.Split(env, ",")
	return slices.DeleteFunc(all, func(w way) bool {
		return w != direct && !slices.Contains(wanted, string(w)) && !(w.stent() && slices.Contains(wanted, "stent"))
	})
}

// stentWays are the ways through stent that are asked for.
func stentWays() []way {
	return slices.DeleteFunc(ways(), func(w way) bool { return !w.stent() })
}

// front opens w to the backend at address and returns where clients connect;
// keys are further lines of the route.
func (w way) front(t testing.TB, address, keys string) string {
	t.Helper()
	switch w {
	case direct:
		return address
	case tcp:
		return byteRelay(t, address)
	default:
		return startStent(t, w.config(address, keys)).address
	}
}

// byteRelay passes bytes and half-closes between its clients and address.
func byteRelay(t testing.TB, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { relayBytes(conn, address) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func relayBytes(client net.Conn, address string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer upstream.Close()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, upstream}, {upstream, client}} {
		both.Go(func() {
			if _, err := io.Copy(pair[1], pair[0]); err != nil {
				_ = client.Close()
				_ = upstream.Close()
				return
			}
			_ = pair[1].(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}

// listens reports whether something listens on address.
func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}
