package token

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Revocations
		add := func(one Revocation) {
			t.Helper()
			if err := r.Add(one); err != nil {
				t.Fatal(err)
			}
		}
		add(Revocation{ID: "a", Until: time.Now().Add(time.Minute)})
		add(Revocation{TokenID: "t"})
		for _, tt := range []struct {
			id     string
			tokens []string
			want   bool
		}{
			{"a", nil, true}, {"a", []string{"x"}, true}, {"b", []string{"x", "t"}, true}, {"", []string{"t"}, true},
			{"b", nil, false}, {"t", nil, false}, {"", []string{"a"}, false}, {"", nil, false}, {"", []string{""}, false},
		} {
			if got := r.Refuses(tt.id, tt.tokens...); got != tt.want {
				t.Errorf("%q %q: got %v", tt.id, tt.tokens, got)
			}
		}
		time.Sleep(time.Minute)
		if r.Refuses("a") {
			t.Error("in force when it is over")
		}
		if got := r.List(); !slices.Equal(got, []Revocation{{TokenID: "t"}}) {
			t.Errorf("listed %v", got)
		}
		if r.Remove(Revocation{ID: "a"}) || !r.Remove(Revocation{TokenID: "t"}) || r.Remove(Revocation{TokenID: "t"}) {
			t.Error("removed what is not there, or not what is")
		}
		if r.Refuses("", "t") {
			t.Error("in force when it is removed")
		}
	})
}

// Those that are over make room; beyond the bound there is an error, and what
// is there can still be prolonged.
func TestRevocationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Revocations
		for i := range 3 * maxRevocations {
			if i%maxRevocations == 0 {
				time.Sleep(time.Minute)
			}
			if err := r.Add(Revocation{ID: fmt.Sprint(i), Until: time.Now().Add(time.Minute)}); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if err := r.Add(Revocation{ID: "one more"}); !errors.Is(err, ErrTooMany) {
			t.Errorf("got %v", err)
		}
		if err := r.Add(Revocation{ID: fmt.Sprint(3*maxRevocations - 1)}); err != nil {
			t.Error(err)
		}
	})
}

func TestNoRevocations(t *testing.T) {
	if (*Revocations)(nil).Refuses("a", "b") {
		t.Error("refused")
	}
}
