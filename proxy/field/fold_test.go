package field

import "testing"

func TestFold(t *testing.T) {
	for name, want := range map[string]string{"": "", "X-User": "X-User", "x_user": "X-User", "X_USER-id": "X-User-Id", "_": "-"} {
		if got := Fold(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
