package upstream

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/config"
)

func TestOutlierIsEjectedAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.set("10.0.0.2:80", welcome)
		pools := NewPools(n.options())
		u := upstreamOf("ws://10.0.0.1", "ws://10.0.0.2")
		u.Outlier = &config.Outlier{Failures: 3, Eject: milliseconds(30_000), MaxEjected: 0.5}
		p := update(t, pools, u)
		bad := p.targets[0]
		fail := func(times int) {
			for range times {
				c, err := p.Dial(t.Context(), &Handshake{Prefer: bad})
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
		}
		fail(2)
		if got := bad.State(); got != Up {
			t.Fatalf("after 2 failures: %v", got)
		}
		n.set("10.0.0.1:80", welcome)
		fail(1) // this one succeeds and ends the row
		n.set("10.0.0.1:80", nil)
		fail(2)
		if got := bad.State(); got != Up {
			t.Fatalf("a success did not end the row: %v", got)
		}
		changed := pools.Changed()
		fail(1)
		if got := bad.State(); got != Ejected {
			t.Fatalf("after 3 failures: %v", got)
		}
		<-changed
		before := n.dialled("10.0.0.1:80")
		fail(20)
		if after := n.dialled("10.0.0.1:80"); after != before {
			t.Errorf("an ejected target was dialled %d times", after-before)
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		if got := bad.State(); got != Ejected {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(time.Nanosecond)
		if got := bad.State(); got != Up {
			t.Errorf("in time: %v", got)
		}
		fail(1) // still bad: out again at once
		if got := bad.State(); got != Ejected {
			t.Errorf("after the first failure: %v", got)
		}
		synctest.Wait()
	})
}

func TestMaxEjected(t *testing.T) {
	for _, tt := range []struct {
		targets int
		max     config.Percent
		want    int
	}{
		{1, 1, 0}, // never the only one
		{2, 0.5, 1},
		{3, 0.5, 1},
		{4, 0.5, 2},
		{10, 0.25, 2},
		{3, 0.1, 1}, // one at least
		{3, 0, 0},
		{3, 1, 3},
	} {
		n := newFakeNet()
		u := upstreamOf()
		for i := range tt.targets {
			u.Targets = append(u.Targets, config.Target{URL: "ws://10.0.0." + string(rune('0'+i)), Weight: 1})
		}
		u.Outlier = &config.Outlier{Failures: 1, Eject: milliseconds(60_000), MaxEjected: tt.max}
		u.Dial.Attempts = 100
		p := update(t, NewPools(n.options()), u)
		for range 3 {
			if _, err := p.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrNoTarget) {
				t.Fatal(err)
			}
		}
		out := 0
		for _, target := range p.targets {
			if target.State() == Ejected {
				out++
			}
		}
		if out != tt.want {
			t.Errorf("%v of %d: %d ejected, want %d", float64(tt.max), tt.targets, out, tt.want)
		}
	}
}

// An ejected target is asked all the same where no other is up, and is back
// with the first success.
func TestEjectedIsBetterThanNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		pools := NewPools(n.options())
		u := upstreamOf("ws://10.0.0.1", "ws://10.0.0.2")
		u.Outlier = &config.Outlier{Failures: 3, Eject: milliseconds(30_000), MaxEjected: 0.5}
		p := update(t, pools, u)
		if err := pools.Drain("app", "10.0.0.2:80"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := p.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrUnreachable) {
				t.Fatal(err)
			}
		}
		if got := p.targets[0].State(); got != Ejected {
			t.Fatalf("after 3 failures: %v", got)
		}
		n.set("10.0.0.1:80", welcome)
		open(t, p).Close()
		if got := p.targets[0].State(); got != Up {
			t.Errorf("after a success: %v", got)
		}
	})
}

// TestRefusalsDoNotEject gives answers that belong to the client.
func TestRefusalsDoNotEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		pools := NewPools(n.options())
		u := upstreamOf("ws://10.0.0.1", "ws://10.0.0.2")
		u.Outlier = &config.Outlier{Failures: 2, Eject: milliseconds(60_000), MaxEjected: 0.5}
		p := update(t, pools, u)
		dial := func(answer string) {
			t.Helper()
			n.set("10.0.0.1:80", nil)
			if answer != "" {
				n.set("10.0.0.1:80", say("HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n"))
			}
			n.set("10.0.0.2:80", welcome)
			c, err := p.Dial(t.Context(), &Handshake{Prefer: p.targets[0]})
			if refused, ok := errors.AsType[*Refused](err); ok {
				refused.Response.Body.Close()
			} else if err != nil {
				t.Fatal(err)
			} else {
				c.Close()
			}
		}
		for _, answer := range []string{"503 Busy", "401 No", "", "401 No", ""} {
			dial(answer)
		}
		if got := p.targets[0].State(); got != Up {
			t.Errorf("refusals below 500 end the row: %v", got)
		}
		dial("503 Busy") // neither ends the row nor lengthens it
		if got := p.targets[0].State(); got != Up {
			t.Errorf("a 503 counted: %v", got)
		}
		dial("")
		if got := p.targets[0].State(); got != Ejected {
			t.Errorf("a 503 ended the row: %v", got)
		}
		synctest.Wait()
	})
}
