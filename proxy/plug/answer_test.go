package plug

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A backend's answer without a Content-Type reaches the client without one.
func TestAnswerGuessesNoContentType(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := Observe(w)
			if explicit {
				a.WriteHeader(http.StatusForbidden)
			}
			a.Write([]byte("<html>"))
		}))
		resp, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		srv.Close()
		if got, ok := resp.Header["Content-Type"]; ok {
			t.Errorf("explicit status %t: got Content-Type %q, want none", explicit, got)
		}
	}
}
