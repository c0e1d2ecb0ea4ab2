package testbackend

import (
	"bytes"
	"strings"
	"testing"
)

func TestMessage(t *testing.T) {
	for _, size := range []int{0, HeaderSize, HeaderSize + 1, 1000, 1 << 20} {
		m := Message{Stream: 7, Number: 1 << 31, Ack: 3}
		data := m.Append(nil, size)
		if len(data) != max(size, HeaderSize) {
			t.Errorf("size %d: %d bytes", size, len(data))
		}
		if got, err := Parse(data); got != m || err != nil {
			t.Errorf("size %d: got %+v, %v", size, got, err)
		}
	}
}

func TestMessageTorn(t *testing.T) {
	good := Message{Stream: 7, Number: 9}.Append(nil, 1000)
	other := Message{Stream: 7, Number: 10}.Append(nil, 1000)
	for name, data := range map[string][]byte{
		"empty":             nil,
		"cut":               good[:999],
		"cut in its header": good[:20],
		"two joined":        append(bytes.Clone(good), other...),
		"end of another":    append(bytes.Clone(good[:500]), other[500:]...),
		"piece missing":     append(append(bytes.Clone(good[:500]), good[510:]...), good[990:]...),
		"foreign byte":      append(bytes.Clone(good[:999]), '!'),
		"no header":         bytes.Repeat([]byte("x"), 100),
	} {
		if m, err := Parse(data); err == nil {
			t.Errorf("%s: parsed as %+v", name, m)
		}
	}
}

func TestLedger(t *testing.T) {
	opened := func(attempt uint32) Record { return Record{Opened, 1, attempt, 0} }
	got := func(attempt, n uint32) Record { return Record{Got, 1, attempt, n} }
	for _, tc := range []struct {
		name    string
		records []Record
		client  map[uint32]uint32 // what the client got
		fault   string
		lost    int
	}{
		{"all came", []Record{opened(1), got(1, 1), got(1, 2), opened(2), got(2, 3)}, nil, "", 0},
		{"some lost between", []Record{opened(1), got(1, 1), opened(3), got(3, 5)}, nil, "", 3},
		{"books read late", []Record{opened(2), got(2, 3), opened(1), got(1, 1), got(1, 2)}, nil, "", 0},
		{"nothing but a leg", []Record{opened(1)}, nil, "", 0},
		{"repeated", []Record{opened(1), got(1, 1), got(1, 1)}, nil, "got 1 after 1", 0},
		{"repeated to another", []Record{opened(1), got(1, 1), got(1, 2), opened(2), got(2, 2)}, nil, "begins with 2", -1},
		{"gap", []Record{opened(1), got(1, 1), got(1, 3)}, nil, "got 3 after 1", 0},
		{"out of order", []Record{opened(1), got(1, 2), opened(2), got(2, 1)}, nil, "begins with 1", 0},
		{"torn", []Record{opened(1), {Torn, 1, 1, 0}}, nil, "torn", 0},
		{"attempt used twice", []Record{opened(1), opened(1)}, nil, "attempt 1 twice", 0},
		{"polite end", []Record{opened(1), {Sent, 1, 1, 4}}, map[uint32]uint32{1: 4}, "", 0},
		{"polite end, tail lost", []Record{opened(1), {Sent, 1, 1, 4}}, map[uint32]uint32{1: 3}, "client got 3", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := NewLedger()
			for _, r := range tc.records {
				l.Add(r)
			}
			faults := strings.Join(l.Faults(map[uint32]map[uint32]uint32{1: tc.client}), "; ")
			if tc.client == nil {
				faults = strings.Join(l.Faults(nil), "; ")
			}
			if tc.fault == "" && faults != "" || !strings.Contains(faults, tc.fault) {
				t.Errorf("faults %q, want %q", faults, tc.fault)
			}
			if lost := l.Lost(1); lost != tc.lost {
				t.Errorf("%d lost, want %d", lost, tc.lost)
			}
		})
	}
}
