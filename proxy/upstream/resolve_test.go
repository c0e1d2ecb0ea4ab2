package upstream

import (
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolveHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		for _, host := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
			n.set(host+":4000", welcome)
		}
		n.name("chat.internal", nil, "10.0.0.2", "10.0.0.1", "2001:db8::1")
		pools := NewPools(n.options())
		p := update(t, pools, upstreamOf("dns+ws://chat.internal:4000/base"))
		serve(t, pools)
		synctest.Wait()
		want := []string{"10.0.0.1:4000", "10.0.0.2:4000", "[2001:db8::1]:4000"}
		if got := names(p); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		target := listed(p)[0]
		if target.Host() != "chat.internal:4000" || target.Address() != "ws://10.0.0.1:4000/base" {
			t.Errorf("host %s, address %s", target.Host(), target.Address())
		}
		c, err := p.Dial(t.Context(), &Handshake{Prefer: target})
		if err != nil {
			t.Fatal(err)
		}

		// An address goes and another comes: state stays with the address.
		n.name("chat.internal", nil, "10.0.0.3", "10.0.0.2")
		kept := listed(p)[1]
		changed := pools.Changed()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		<-changed
		if got, want := names(p), []string{"10.0.0.2:4000", "10.0.0.3:4000"}; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if listed(p)[0] != kept {
			t.Error("a target that stayed was made anew")
		}
		if got := pools.Leaving(); len(got) != 1 || got[0] != target || !target.Leaving() {
			t.Errorf("leaving %v, want the address that went", got)
		}
		if got := targetNamed(t, pools, "10.0.0.1:4000"); got.State != Draining || got.Sessions != 1 {
			t.Errorf("got %+v, want it draining", got)
		}
		c.Close()
		if got := pools.Snapshot()[0].Targets; len(got) != 2 {
			t.Errorf("got %+v, want it gone", got)
		}

		// A failure and an empty answer keep the last good set.
		n.name("chat.internal", errors.New("no such host"))
		time.Sleep(40 * time.Second)
		n.name("chat.internal", nil)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if got, want := names(p), []string{"10.0.0.2:4000", "10.0.0.3:4000"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		// It is asked sooner then.
		before := n.asked()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := n.asked() - before; got < 4 {
			t.Errorf("%d lookups in 30 s after a failure", got)
		}

		// A reload keeps what is known, and what two entries name is one target.
		update(t, pools, upstreamOf("ws://10.0.0.9:1", "ws://10.0.0.3:4000/base", "dns+ws://chat.internal:4000/base"))
		if got, want := names(p), []string{"10.0.0.9:1", "10.0.0.3:4000", "10.0.0.2:4000"}; !slices.Equal(got, want) {
			t.Errorf("after a reload: got %v, want %v", got, want)
		}
		synctest.Wait()
	})
}

// TestDialWaitsForTheFirstAnswer opens a session before DNS has spoken.
func TestDialWaitsForTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.set("10.0.0.1:80", welcome)
		n.name("a", nil, "10.0.0.1")
		pools := NewPools(n.options())
		p := update(t, pools, upstreamOf("dns+ws://a:80"))
		go func() {
			time.Sleep(time.Second)
			serve(t, pools)
		}()
		start := time.Now()
		open(t, p).Close()
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}

		// A lookup that fails ends the wait; without any it ends in time.
		for _, tt := range []struct {
			url  string
			want time.Duration
		}{{"dns+ws://none:80", 0}, {"dns+ws://other:80", 5 * time.Second}} {
			other := NewPools(n.options())
			q := update(t, other, upstreamOf(tt.url))
			if tt.want == 0 {
				serve(t, other)
			}
			start = time.Now()
			if _, err := q.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrNoTarget) {
				t.Errorf("%s: %v", tt.url, err)
			}
			if took := time.Since(start); took != tt.want {
				t.Errorf("%s took %v, want %v", tt.url, took, tt.want)
			}
		}
		synctest.Wait()
	})
}

func TestResolveSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.records = []*net.SRV{
			{Target: "b.example.com.", Port: 4001, Priority: 1, Weight: 30},
			{Target: "a.example.com.", Port: 4000, Priority: 1, Weight: 0},
			{Target: "spare.example.com.", Port: 5000, Priority: 9, Weight: 5},
			{Target: ".", Port: 0, Priority: 0, Weight: 0},
		}
		pools := NewPools(n.options())
		u := upstreamOf("srv+wss://_ws._tcp.chat.example.com/x")
		u.Targets[0].Name = "chat"
		p := update(t, pools, u)
		serve(t, pools)
		synctest.Wait()
		want := []string{"chat@a.example.com:4000", "chat@b.example.com:4001", "chat@spare.example.com:5000"}
		if got := names(p); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		a, b, spare := listed(p)[0], listed(p)[1], listed(p)[2]
		if a.weight != 1 || b.weight != 30 || a.priority != 1 || spare.priority != 9 {
			t.Errorf("weights %d, %d; priorities %d, %d", a.weight, b.weight, a.priority, spare.priority)
		}
		if a.tls == nil || a.tls.ServerName != "chat.example.com" || a.Host() != "a.example.com:4000" {
			t.Errorf("server name %+v, host %s", a.tls, a.Host())
		}
		if a.Address() != "wss://a.example.com:4000/x" {
			t.Errorf("address %s", a.Address())
		}
	})
}
