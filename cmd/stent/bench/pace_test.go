package bench

import (
	"testing"
	"time"
)

// What is late does not move what comes after it.
func TestPaceKeepsItsTimes(t *testing.T) {
	const rate = 1000
	epoch := time.Now()
	var due []int64
	var lags int
	pace(epoch, epoch.Add(time.Millisecond), rate, func(n int, at int64) bool {
		if n != len(due) {
			t.Fatalf("got message %d, want %d", n, len(due))
		}
		if now := int64(time.Since(epoch)); now < at {
			t.Errorf("message %d came %d ns early", n, at-now)
		}
		due = append(due, at)
		if n == 3 {
			time.Sleep(20 * time.Millisecond) // a stall
		}
		return n < 49
	}, func(int64) bool { return true }, func(ns int64) {
		if lags++; ns < 0 {
			t.Errorf("a lag of %d ns", ns)
		}
	})
	if len(due) != 50 {
		t.Fatalf("got %d messages, want 50", len(due))
	}
	for n, at := range due {
		if want := int64(time.Millisecond) + int64(n)*int64(time.Second)/rate; at != want {
			t.Errorf("message %d: got %d, want %d", n, at, want)
		}
	}
	if lags > 50-19 {
		t.Errorf("got %d lags: what was late for another's sake is no lag", lags)
	}
}

func TestPaceEndsWhereItIsNotWanted(t *testing.T) {
	calls := 0
	pace(time.Now(), time.Now(), 0.001, func(int, int64) bool { return true }, func(int64) bool { calls++; return calls < 3 }, func(int64) {})
	if calls != 3 {
		t.Errorf("asked %d times, want 3", calls)
	}
}

func TestQueue(t *testing.T) {
	var q queue
	next, want := int64(0), int64(0)
	for round := range 200 {
		for range round {
			q.push(next)
			next++
		}
		for range round / 2 {
			if got := q.pop(); got != want {
				t.Fatalf("got %d, want %d", got, want)
			}
			want++
		}
		if all := q.all(); int64(len(all)) != next-want || q.len() != len(all) {
			t.Fatalf("got %d and %d, want %d", len(all), q.len(), next-want)
		}
	}
	if len(q.times) > 2*q.len()+100 {
		t.Errorf("%d of %d places in use", q.len(), len(q.times))
	}
}
