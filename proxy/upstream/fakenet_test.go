package upstream

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stentproxy/stent/config"
)

// fakeNet is a network and a DNS without sockets, for tests that live in a
// synctest bubble.
type fakeNet struct {
	mu      sync.Mutex
	hosts   map[string]script // by address
	dials   map[string]int
	names   map[string][]string
	records []*net.SRV
	fail    error // of every lookup
	lookups int
}

func newFakeNet() *fakeNet {
	return &fakeNet{hosts: make(map[string]script), dials: make(map[string]int), names: make(map[string][]string)}
}

func (n *fakeNet) options() Options { return Options{Resolver: n, DialContext: n.DialContext} }

// set puts a server at an address; nil takes it away.
func (n *fakeNet) set(address string, serve script) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[address] = serve
}

// name sets a name's addresses; err makes every lookup fail.
func (n *fakeNet) name(host string, err error, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[host], n.fail = addresses, err
}

func (n *fakeNet) dialled(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[address]
}

// asked returns how many lookups there were.
func (n *fakeNet) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lookups
}

func (n *fakeNet) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials[address]++
	serve := n.hosts[address]
	if serve == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		if req, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
			serve(there, req)
		}
	}()
	return here, nil
}

func (n *fakeNet) LookupHost(_ context.Context, host string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups++
	return slices.Clone(n.names[host]), n.fail
}

func (n *fakeNet) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups++
	if service != "" || proto != "" {
		return "", nil, &net.DNSError{Err: "asked in parts", Name: name}
	}
	return name, n.records, n.fail
}

// names returns the names of the pool's targets in order.
func names(p *Pool) []string {
	var all []string
	for _, t := range listed(p) {
		all = append(all, t.name)
	}
	return all
}

// listed returns the pool's targets in order.
func listed(p *Pool) []*Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.targets)
}

// open dials and fails the test when it can't.
func open(t *testing.T, p *Pool) *Conn {
	t.Helper()
	c, err := p.Dial(t.Context(), &Handshake{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func healthy(h config.Health, u config.Upstream) config.Upstream {
	u.Health = &h
	return u
}
