package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// playChromium plays the cases on a page in a headless Chromium, which loads
// the same script as Node's clients and posts the results back.
func playChromium(t testing.TB, base string, cases []play.Case) []play.Result {
	t.Helper()
	return playChromiumWith(t, base, cases)
}

// playChromiumWith is playChromium with further flags.
func playChromiumWith(t testing.TB, base string, cases []play.Case, flags ...string) []play.Result {
	t.Helper()
	chromium := tool(t, "chromium", "chromium-browser", "google-chrome")
	posted := make(chan []play.Result, 1)
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(os.DirFS(nodeDir)))
	mux.HandleFunc("GET /cases", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"base": base, "cases": cases})
	})
	mux.HandleFunc("POST /results", func(_ http.ResponseWriter, r *http.Request) {
		var all []play.Result
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
			t.Errorf("results of the page: %v", err)
		}
		select {
		case posted <- all:
		default:
		}
	})
	page := "http://" + serveHTTP(t, mux) + "/page.html"
	cmd := exec.Command(chromium, append(flags,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", page)...)
	c := start(t, cmd, func([]byte) {})
	defer func() { _ = c.end(10 * time.Second) }()
	select {
	case all := <-posted:
		return all
	case <-c.done:
		t.Error("chromium ended before the page was done")
	case <-time.After(casesTime):
		t.Error("the page was never done")
	}
	return nil
}
