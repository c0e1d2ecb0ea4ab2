package plug

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// unhurried is a ResponseWriter that notes the largest write and counts the
// deadlines.
type unhurried struct {
	http.ResponseWriter
	most, deadlines int
}

func (u *unhurried) Write(p []byte) (int, error) {
	u.most = max(u.most, len(p))
	return u.ResponseWriter.Write(p)
}

func (u *unhurried) SetWriteDeadline(time.Time) error {
	u.deadlines++
	return nil
}

// Each part of a large answer has its own time.
func TestAnswerIsPaced(t *testing.T) {
	for _, stall := range []time.Duration{0, time.Second} {
		body := strings.Repeat("0123456789", 10_000)
		rec := httptest.NewRecorder()
		u := &unhurried{ResponseWriter: rec}
		a := Observe(u)
		a.Info = &Info{Stall: stall}
		for _, p := range []string{"", body} {
			if n, err := a.Write([]byte(p)); n != len(p) || err != nil {
				t.Errorf("wrote %d of %d, %v", n, len(p), err)
			}
		}
		if got := rec.Body.String(); got != body || a.Bytes != int64(len(body)) {
			t.Errorf("%d of %d bytes, counted as %d", len(got), len(body), a.Bytes)
		}
		if u.most > pacedPart || (u.deadlines >= 4) != (stall > 0) {
			t.Errorf("stall %v: up to %d bytes at once, %d deadlines", stall, u.most, u.deadlines)
		}
	}
}

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
