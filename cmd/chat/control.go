package main

import "net/http"

// newControl answers for the button that kills the backend.
func newControl(kill func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /demo/features", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write([]byte(`{"kill":true}`))
	})
	mux.HandleFunc("POST /demo/backend/kill", func(w http.ResponseWriter, _ *http.Request) {
		kill()
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}
