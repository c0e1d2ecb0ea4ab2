package supervisor

import (
	"testing"
	"time"
)

func TestIntensity(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name   string
		max    int
		window time.Duration
		at     []time.Duration
		want   []bool
	}{
		{"one more than max", 2, 10 * s, []time.Duration{0, 1 * s, 2 * s}, []bool{true, true, false}},
		{"window slides", 2, 10 * s, []time.Duration{0, 6 * s, 11 * s, 12 * s, 17 * s}, []bool{true, true, true, false, true}},
		{"the window's end belongs to it", 1, 10 * s, []time.Duration{0, 10 * s, 10*s + 1}, []bool{true, false, true}},
		{"a refusal is not recorded", 1, 10 * s, []time.Duration{0, 9 * s, 11 * s}, []bool{true, false, true}},
		{"zero allows none", 0, 10 * s, []time.Duration{0, 100 * s}, []bool{false, false}},
		{"no window counts the same instant", 1, 0, []time.Duration{0, 0, 1}, []bool{true, false, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			i := Intensity{Max: tt.max, Window: tt.window}
			for n, at := range tt.at {
				if got := i.Allow(start.Add(at)); got != tt.want[n] {
					t.Errorf("Allow at %s = %t, want %t", at, got, tt.want[n])
				}
			}
		})
	}
}

func TestIntensityRecent(t *testing.T) {
	start := time.Now()
	i := Intensity{Max: 5, Window: time.Minute}
	for n := range 3 {
		i.Allow(start.Add(time.Duration(n) * 20 * time.Second))
	}
	if got, want := i.Recent(start.Add(70*time.Second)), 2; got != want {
		t.Errorf("Recent = %d, want %d", got, want)
	}
}

func TestIntensityAllocates(t *testing.T) {
	now := time.Now()
	i := Intensity{Max: 10, Window: time.Minute}
	for range i.Max {
		i.Allow(now)
	}
	if got := testing.AllocsPerRun(1000, func() {
		now = now.Add(7 * time.Second)
		i.Allow(now)
	}); got != 0 {
		t.Errorf("Allow in a full window allocates %g times, want 0", got)
	}
}
