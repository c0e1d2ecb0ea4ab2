package plug

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/config"
)

// Over ten seconds what comes through is exact, and a client that waits as
// long as it was told gets in.
func TestRateIsExact(t *testing.T) {
	for _, tt := range []struct {
		perSecond float64
		burst     int
		want      int // of 100 requests a second for 10 s
	}{
		{perSecond: 10, want: 110},
		{perSecond: 10, burst: 1, want: 101},
		{perSecond: 0.5, want: 6},
		{perSecond: 50, burst: 20, want: 520},
		{perSecond: 1000, want: 1000},
	} {
		t.Run(fmt.Sprint(tt.perSecond, " in bursts of ", tt.burst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := compile(t, "rate", &config.RatePlug{PerSecond: tt.perSecond, Burst: tt.burst, By: "ip"}, Env{}).Wrap(ok(nil))
				through := 0
				for range 1000 {
					r, _ := request("GET", "/")
					if status(h, r).Code == 200 {
						through++
					}
					time.Sleep(10 * time.Millisecond)
				}
				if through < tt.want-1 || through > tt.want+1 {
					t.Errorf("%d came through, want %d", through, tt.want)
				}
				for {
					r, _ := request("GET", "/")
					w := status(h, r)
					if w.Code == 200 {
						continue
					}
					after, err := strconv.Atoi(w.Header().Get("Retry-After"))
					if w.Code != 429 || err != nil || after < 1 {
						t.Fatalf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
					}
					time.Sleep(time.Duration(after) * time.Second)
					if r, _ := request("GET", "/"); status(h, r).Code != 200 {
						t.Error("refused after the time it was told to wait")
					}
					return
				}
			})
		})
	}
}

func TestRateKeys(t *testing.T) {
	h := compile(t, "rate", &config.RatePlug{PerSecond: 1e-9, Burst: 1, By: "ip"}, Env{}).Wrap(ok(nil))
	for _, tt := range []struct {
		client string
		want   int
	}{
		{"192.0.2.1", 200},
		{"192.0.2.1", 429},
		{"::ffff:192.0.2.1", 429}, // the same
		{"192.0.2.2", 200},
		{"2001:db8::1", 200},
		{"2001:db8::ffff:2", 429}, // of the same network
		{"2001:db8:0:1::1", 200},
	} {
		r, info := request("GET", "/")
		info.ClientIP = netip.MustParseAddr(tt.client)
		if got := status(h, r).Code; got != tt.want {
			t.Errorf("%s got %d, want %d", tt.client, got, tt.want)
		}
	}
}

// A reload that changes the rate goes on counting, and keys without end take
// no memory without end.
func TestRatesOfTheProcess(t *testing.T) {
	rates := new(Rates)
	start := time.Now()
	name := countName{pipeline: "p", by: "ip", key: "a"}
	for i := range 3 {
		if wait := rates.take(name, 1, 3, start); wait != 0 {
			t.Fatalf("request %d waits %s", i, wait)
		}
	}
	if wait := rates.take(name, 2, 1, start); wait != 500*time.Millisecond {
		t.Errorf("under the new rate the wait is %s, want 500ms", wait)
	}
	for i := range 2 * maxRates {
		name.key = strconv.Itoa(i)
		rates.take(name, 1, 1, start)
	}
	if n := rates.limiters.Len(); n != maxRates {
		t.Errorf("%d keys are known, want %d", n, maxRates)
	}
}
