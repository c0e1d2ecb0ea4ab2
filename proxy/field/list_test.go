package field

import (
	"slices"
	"testing"
)

func TestElements(t *testing.T) {
	for _, tt := range []struct{ lines, want []string }{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{" a ,\tb\t", ",, c;d=e,"}, []string{"a", "b", "c;d=e"}},
		{[]string{"a b,\u00a0c"}, []string{"a b", "\u00a0c"}},
	} {
		if got := slices.Collect(Elements(tt.lines)); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.lines, got, tt.want)
		}
	}
	for first := range Elements([]string{"a,b", "c"}) {
		if first != "a" {
			t.Errorf("after the first came %q", first)
		}
		break
	}
}
