package upstream

import (
	"fmt"
	"testing"

	"github.com/stentproxy/stent/config"
)

func BenchmarkPick(b *testing.B) {
	for _, kind := range []config.BalanceKind{
		config.BalanceLeastSessions, config.BalanceRoundRobin, config.BalanceRandom, config.BalanceP2C, config.BalanceHash,
	} {
		for _, n := range []int{3, 100} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				var urls []string
				for i := range n {
					urls = append(urls, fmt.Sprintf("ws://10.0.0.1:%d", i+1))
				}
				u := upstreamOf(urls...)
				u.Balance = config.Balance{Kind: kind, Key: "id"}
				p := newPoolOf(b, u)
				h := &Handshake{ID: "user_socket:42"}
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := p.tryReserve(h, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkDial(b *testing.B) {
	p := newPoolOf(b, upstreamOf(listen(b, welcome).url()))
	h := &Handshake{RequestURI: "/socket/websocket?vsn=2.0.0", Host: "chat.example.com",
		Header: []byte("User-Agent: bench\r\nCookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\nStent-Session: 0123456789\r\n")}
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.Dial(b.Context(), h)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// TestPickAllocatesNothing pins what BenchmarkPick shows.
func TestPickAllocatesNothing(t *testing.T) {
	for _, kind := range []config.BalanceKind{config.BalanceLeastSessions, config.BalanceP2C, config.BalanceHash} {
		u := upstreamOf("ws://10.0.0.1", "ws://10.0.0.2", "ws://10.0.0.3")
		u.Balance = config.Balance{Kind: kind, Key: "ip"}
		p := newPoolOf(t, u)
		h := &Handshake{IP: "10.1.1.1"}
		if n := testing.AllocsPerRun(100, func() { _, _, _ = p.tryReserve(h, nil) }); n != 0 {
			t.Errorf("%s: %v allocations for a pick", kind, n)
		}
	}
}
