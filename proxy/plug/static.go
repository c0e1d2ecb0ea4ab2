package plug

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/stentproxy/stent/config"
	"go.uber.org/zap"
)

// static answers GET and HEAD with the files of a folder. What is none of
// them goes on, as do handshakes: the folder may lie over a backend's paths.
// Folders answer with their index.html and are never listed.
func static(c *config.StaticPlug, env Env) (Compiled, error) {
	if info, err := os.Stat(c.From); err != nil {
		return Compiled{}, config.Within("from", err)
	} else if !info.IsDir() {
		return Compiled{}, config.Within("from", fmt.Errorf("%s is no folder", c.From))
	}
	log := env.Log
	if log == nil {
		log = zap.NewNop()
	}
	at := strings.TrimRight(c.At, "/")
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead || AsksWebSocket(r) {
				next.ServeHTTP(w, r)
				return
			}
			name, ok := fileName(r.URL.EscapedPath(), at)
			if !ok {
				next.ServeHTTP(w, r)
				return
			}
			// The folder is opened anew, so that a deployment may replace it.
			// Nothing below a Root leads out of it, by ".." or by a link.
			root, err := os.OpenRoot(c.From)
			if err != nil {
				log.Warn("folder of a static plug", zap.Error(err))
				next.ServeHTTP(w, r)
				return
			}
			defer root.Close()
			if !serveFile(w, r, root, name) {
				next.ServeHTTP(w, r)
			}
		})
	}}, nil
}

// fileName returns the name of a file below the folder that is seen at a
// path. Names that begin with a dot are nobody's business (.git, .env).
func fileName(escaped, at string) (string, bool) {
	rest, ok := strings.CutPrefix(escaped, at)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	var segments []string
	for segment := range strings.SplitSeq(rest, "/") {
		name, err := url.PathUnescape(segment)
		if err != nil || strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") && name != ".well-known" {
			return "", false
		}
		if name != "" {
			segments = append(segments, name)
		}
	}
	if len(segments) == 0 {
		return ".", true
	}
	return path.Join(segments...), true
}

// serveFile answers with a file, or returns false where there is none.
func serveFile(w http.ResponseWriter, r *http.Request, root *os.Root, name string) bool {
	info, err := root.Stat(name)
	if err != nil {
		return false
	}
	if info.IsDir() {
		if name = path.Join(name, "index.html"); !regular(root, name) {
			return false
		}
		if !strings.HasSuffix(r.URL.Path, "/") {
			// The page's relative links count from here.
			toFolder(w, r)
			return true
		}
	}
	if !regular(root, name) { // opening a pipe would wait for its writer
		return false
	}
	file, err := root.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return false
	}
	From(r).ApplyResponse(w.Header())
	http.ServeContent(w, r, info.Name(), info.ModTime(), file)
	return true
}

func regular(root *os.Root, name string) bool {
	info, err := root.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// toFolder redirects to the path with a slash behind it.
func toFolder(w http.ResponseWriter, r *http.Request) {
	to := "./" + path.Base(r.URL.EscapedPath()) + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	From(r).ApplyResponse(w.Header())
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
}
