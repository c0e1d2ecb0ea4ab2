// Package page is what the chat's users see: one page, its script and style,
// and the phoenix.js client (MIT, see assets/phoenix.LICENSE.md), 1.8.16 from
// the npm package phoenix.
package page

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed assets
var files embed.FS

// Handler serves the page at / and its parts below /assets/.
func Handler() http.Handler {
	mux := http.NewServeMux()
	assets, _ := fs.Sub(files, "assets") // the name is valid
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, assets, "chat.html")
	})
	server := http.StripPrefix("/assets/", http.FileServerFS(assets))
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("file") == "" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		server.ServeHTTP(w, r)
	})
	return mux
}
