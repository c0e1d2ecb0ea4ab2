package testbackend

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// Record is one entry of a backend's book. It outlives the backend, however
// that ends.
type Record struct {
	Kind Kind
	// Client and Attempt name the leg.
	Client, Attempt uint32
	// Number is the message's for Got, and how many were sent for Sent.
	Number uint32
}

// Kind is what a Record tells.
type Kind uint32

// The kinds of records.
const (
	Ready  Kind = iota // the backend listens
	Opened             // a leg begins
	Got                // a whole message has come
	Torn               // one has come that is not as it was sent
	Sent               // a leg has ended with a close frame; all that was sent went before
)

const recordSize = 16

func (r Record) append(b []byte) []byte {
	for _, v := range []uint32{uint32(r.Kind), r.Client, r.Attempt, r.Number} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// leg is one upstream's part of a session.
type leg struct {
	first, last uint32 // numbers that came
	sent        uint32
	ended       bool // sent is known
}

// Ledger is what the backends of a test have got, of all sessions and from
// all their processes. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	clients map[uint32]map[uint32]*leg // by client, by attempt
	faults  faults
}

// faults are the first of those that were found.
type faults struct {
	list []string
	n    int
}

const maxFaults = 10

func (f *faults) add(format string, args ...any) {
	if f.n++; f.n <= maxFaults {
		f.list = append(f.list, fmt.Sprintf(format, args...))
	}
}

func (f *faults) all() []string {
	if f.n > maxFaults {
		return append(slices.Clone(f.list), fmt.Sprintf("and %d more", f.n-maxFaults))
	}
	return f.list
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger { return &Ledger{clients: make(map[uint32]map[uint32]*leg)} }

// Add books a record, but for those of clients without a number. Within one
// leg the numbers have no gap: whatever was handed to that upstream came, up
// to its end.
func (l *Ledger) Add(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Client == 0 {
		return
	}
	legs := l.clients[r.Client]
	if legs == nil {
		legs = make(map[uint32]*leg)
		l.clients[r.Client] = legs
	}
	g := legs[r.Attempt]
	switch {
	case r.Kind == Torn:
		l.faults.add("client %d attempt %d: backend got a torn message", r.Client, r.Attempt)
	case r.Kind == Opened && g != nil:
		l.faults.add("client %d: attempt %d twice", r.Client, r.Attempt)
	case r.Kind == Opened:
		legs[r.Attempt] = new(leg)
	case g == nil:
		l.faults.add("client %d: attempt %d was never opened", r.Client, r.Attempt)
	case r.Kind == Sent:
		g.sent, g.ended = r.Number, true
	case g.last != 0 && r.Number != g.last+1:
		l.faults.add("client %d attempt %d: backend got %d after %d", r.Client, r.Attempt, r.Number, g.last)
		g.last = r.Number
	default:
		if g.last == 0 {
			g.first = r.Number
		}
		g.last = r.Number
	}
}

// read books a backend's records until it ends. Ready is called for that
// record.
func (l *Ledger) read(r io.Reader, ready func()) error {
	var b [recordSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil // a killed backend
			}
			return fmt.Errorf("read the backend's book: %w", err)
		}
		var v [4]uint32
		for i := range v {
			v[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
		rec := Record{Kind(v[0]), v[1], v[2], v[3]}
		if rec.Kind == Ready {
			ready()
		}
		l.Add(rec)
	}
}

// Lost returns how many of a client's messages no backend has got, of those
// before the last that one has.
func (l *Ledger) Lost(client uint32) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last uint32
	got := 0
	for _, g := range l.clients[client] {
		if g.last != 0 {
			got += int(g.last-g.first) + 1
			last = max(last, g.last)
		}
	}
	return int(last) - got
}

// Attempts returns how many upstreams a client's session has had.
func (l *Ledger) Attempts(client uint32) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients[client])
}

// Faults returns what broke the rule that no message is torn, out of order
// or there twice, on its way from a client; got is what each client got of
// each attempt.
func (l *Ledger) Faults(got map[uint32]map[uint32]uint32) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := faults{slices.Clone(l.faults.list), l.faults.n}
	for _, client := range slices.Sorted(maps.Keys(l.clients)) {
		legs, before := l.clients[client], uint32(0)
		for _, attempt := range slices.Sorted(maps.Keys(legs)) {
			g := legs[attempt]
			if g.last != 0 && g.first <= before {
				found.add("client %d attempt %d: begins with %d, attempts before had %d", client, attempt, g.first, before)
			}
			before = max(before, g.last)
			if sides, ok := got[client]; ok && g.ended && sides[attempt] != g.sent {
				found.add("client %d attempt %d: closed politely after %d messages, client got %d", client, attempt, g.sent, sides[attempt])
			}
		}
	}
	return found.all()
}
