package plug

import (
	"net/http/httptest"
	"testing"
)

// A field that is read here and set there is a client's own only where it
// says who the client is.
func TestWithheldFields(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer own")
	r.Header.Set("X-User", "mallory")
	r.Header.Set("X-Tenant", "own")
	r = With(r, &Info{Withheld: []string{"Authorization", "X-User"}})
	asked := (&forward{copied: []string{"Authorization", "X-User", "X-Tenant"}}).question(r)
	for name, want := range map[string]string{"Authorization": "Bearer own", "X-User": "", "X-Tenant": "own"} {
		if got := asked.Get(name); got != want {
			t.Errorf("the service is asked with %s %q, want %q", name, got, want)
		}
	}
	for by, want := range map[string]string{"header:X-User": "", "header:x-tenant": "own"} {
		key, err := limitKey(by, Env{})
		if err != nil {
			t.Fatal(err)
		}
		if got := key(r); got != want {
			t.Errorf("%s counts under %q, want %q", by, got, want)
		}
	}
}
