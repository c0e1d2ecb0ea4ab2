package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
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
// API is at the URL admin counts of a session ("" for no such answer), and
// kill, which ends the backend (nil where it can't be).
func NewControl(admin string, kill func()) http.Handler {
	c := &control{admin: admin, client: &http.Client{Timeout: 5 * time.Second}}
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

// session answers with what the proxy counts of one session: the entry of
// the admin API's list, which a page of another origin can't ask itself.
func (c *control) session(w http.ResponseWriter, r *http.Request) {
	found, err := c.find(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	case found == nil:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(found)
	}
}

func (c *control) find(r *http.Request) (json.RawMessage, error) {
	query := url.Values{"route": {"/room"}, "limit": {fmt.Sprint(maxMembers)}}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, c.admin+"/api/sessions?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the admin API: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the admin API: %s", resp.Status)
	}
	var list struct {
		Sessions []json.RawMessage `json:"sessions"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAdminAnswer)).Decode(&list); err != nil {
		return nil, fmt.Errorf("read the admin API's answer: %w", err)
	}
	for _, raw := range list.Sessions {
		var entry struct {
			Session string `json:"session"`
		}
		if json.Unmarshal(raw, &entry) == nil && entry.Session == r.PathValue("key") {
			return raw, nil
		}
	}
	return nil, nil
}
