package demo

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxAdminAnswer bounds what is read of one answer of the admin API.
const maxAdminAnswer = 1 << 20

// control is what the page asks beside the backend, and still can when that
// is dead.
type control struct {
	// admin is the base URL of the proxy's admin API.
	admin  string
	client *http.Client
}

// NewControl returns what answers below /demo/: what the proxy whose admin
// API the client reaches at the URL admin counts of a session ("" for no such
// answer), and kill, which ends the backend (nil where it can't be).
func NewControl(admin string, client *http.Client, kill func()) http.Handler {
	c := &control{admin: admin, client: client}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /demo/features", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, `{"counters":%t,"kill":%t}`, admin != "", kill != nil)
	})
	if admin != "" {
		mux.HandleFunc("GET /demo/session/{key}", c.session)
	}
	if kill != nil {
		mux.HandleFunc("POST /demo/backend/kill", func(w http.ResponseWriter, _ *http.Request) {
			kill()
			w.WriteHeader(http.StatusAccepted)
		})
	}
	// No other site's page may kill it.
	return http.NewCrossOriginProtection().Handler(mux)
}

// session answers with what the proxy knows of one session, which a page of
// another origin can't ask the admin API itself.
func (c *control) session(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, c.admin+"/api/sessions/"+url.PathEscape(r.PathValue("key")), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := c.client.Do(req)
	if err != nil {
		http.Error(w, "the admin API does not answer", http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, io.LimitReader(resp.Body, maxAdminAnswer))
}
