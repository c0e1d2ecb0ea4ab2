package plug

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stentproxy/stent/config"
)

// folder makes a folder of files beside one that nobody may read.
func folder(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	root := filepath.Join(top, "public")
	for name, text := range map[string]string{
		"secret.txt":               "secret",
		"public/index.html":        "home",
		"public/app.js":            "js",
		"public/a b.txt":           "blank",
		"public/docs/index.html":   "docs",
		"public/empty/x.txt":       "x",
		"public/.env":              "secret",
		"public/.git/config":       "secret",
		"public/.well-known/x.txt": "known",
		"public/..hidden":          "secret",
	} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"out.txt": "../secret.txt", "absolute.txt": filepath.Join(top, "secret.txt"), "up": "..", "in.txt": "app.js",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestStatic(t *testing.T) {
	root := folder(t)
	const on = "" // nothing served: the request goes on
	for _, tt := range []struct {
		at, method, path string
		want             string
	}{
		{"/", "GET", "/", "home"},
		{"/", "GET", "/app.js", "js"},
		{"/", "GET", "//app.js", "js"},
		{"/", "GET", "/app.js?v=1", "js"},
		{"/", "GET", "/a%20b.txt", "blank"},
		{"/", "GET", "/%61pp.js", "js"},
		{"/", "GET", "/docs/", "docs"},
		{"/", "GET", "/docs/index.html", "docs"},
		{"/", "GET", "/in.txt", "js"},
		{"/", "GET", "/.well-known/x.txt", "known"},
		{"/", "POST", "/app.js", on},
		{"/", "GET", "/nothing", on},
		{"/", "GET", "/app.js/", "js"}, // a slash more names no other file
		{"/", "GET", "/app.js/x", on},
		{"/", "GET", "/empty/", on},
		{"/", "GET", "/pipe", on},
		{"/static", "GET", "/static/app.js", "js"},
		{"/static/", "GET", "/static/app.js", "js"},
		{"/static", "GET", "/app.js", on},
		{"/static", "GET", "/staticapp.js", on},
		{"/static", "GET", "/static../secret.txt", on},

		{"/", "GET", "/../secret.txt", on},
		{"/", "GET", "/docs/../../secret.txt", on},
		{"/", "GET", "/%2e%2e/secret.txt", on},
		{"/", "GET", "/.%2e/secret.txt", on},
		{"/", "GET", "/%2e%2e%2fsecret.txt", on},
		{"/", "GET", "/..%2fsecret.txt", on},
		{"/", "GET", "/..%5csecret.txt", on},
		{"/", "GET", "/%252e%252e/secret.txt", on},
		{"/", "GET", "/docs%2findex.html", on},
		{"/", "GET", "/app.js%00.txt", on},
		{"/", "GET", "/.%00./secret.txt", on},
		{"/", "GET", "/%c0%ae%c0%ae/secret.txt", on},
		{"/", "GET", "/...//secret.txt", on},
		{"/", "GET", "/out.txt", on},
		{"/", "GET", "/absolute.txt", on},
		{"/", "GET", "/up/secret.txt", on},
		{"/", "GET", "/.env", on},
		{"/", "GET", "/%2eenv", on},
		{"/", "GET", "/.git/config", on},
		{"/", "GET", "/..hidden", on},
		{"/", "GET", "/./app.js", on},
	} {
		t.Run(tt.method+" "+tt.path+" at "+tt.at, func(t *testing.T) {
			went := false
			h := compile(t, "static", &config.StaticPlug{At: tt.at, From: root}, Env{}).Wrap(http.HandlerFunc(
				func(http.ResponseWriter, *http.Request) { went = true }))
			r, _ := request(tt.method, "http://a.test"+tt.path)
			w := status(h, r)
			if body := w.Body.String(); body != tt.want || went != (tt.want == on) {
				t.Errorf("got %d %q, went on %v; want %q", w.Code, body, went, tt.want)
			}
		})
	}
}

func TestStaticAnswers(t *testing.T) {
	root := folder(t)
	h := compile(t, "static", &config.StaticPlug{At: "/", From: root}, Env{}).Wrap(ok(nil))
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		r, info := request("GET", "http://a.test"+path, header...)
		info.EditResponse(func(h http.Header) { h.Set("X-Edited", "yes") })
		return status(h, r)
	}
	w := get("/app.js")
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/javascript") || w.Header().Get("X-Edited") != "yes" {
		t.Errorf("header %v", w.Header())
	}
	if w := get("/app.js", "If-Modified-Since", w.Header().Get("Last-Modified")); w.Code != 304 || w.Body.Len() > 0 {
		t.Errorf("not modified got %d", w.Code)
	}
	if w := get("/app.js", "Range", "bytes=1-1"); w.Code != 206 || w.Body.String() != "s" {
		t.Errorf("a range got %d %q", w.Code, w.Body)
	}
	if w := get("/docs?q=1"); w.Code != 301 || w.Header().Get("Location") != "./docs/?q=1" {
		t.Errorf("folder got %d to %q", w.Code, w.Header().Get("Location"))
	}
	if w := get("/app.js", "Connection", "Upgrade", "Upgrade", "WebSocket"); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("a handshake got %d %q, want it to go on", w.Code, w.Body)
	}
}

// A deployment may put another folder in the place of the one that was there.
func TestStaticFollowsDeployment(t *testing.T) {
	root := folder(t)
	h := compile(t, "static", &config.StaticPlug{At: "/", From: root}, Env{}).Wrap(ok(nil))
	if err := os.Rename(root, root+".old"); err != nil {
		t.Fatal(err)
	}
	r, _ := request("GET", "http://a.test/app.js")
	if w := status(h, r); w.Body.Len() > 0 {
		t.Errorf("without the folder got %q", w.Body)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "app.js"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if w := status(h, r); w.Body.String() != "new" {
		t.Errorf("got %q, want new", w.Body)
	}
}

// FuzzStatic sends paths of any kind: none may bring a secret to light.
func FuzzStatic(f *testing.F) {
	for _, path := range []string{"/app.js", "/../secret.txt", "/%2e%2e/secret.txt", "/up/secret.txt", "/.env", "/docs/..%2f../secret.txt", "/out.txt"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		root := folder(t)
		h := compile(t, "static", &config.StaticPlug{At: "/", From: root}, Env{}).Wrap(ok(nil))
		r, _ := request("GET", "http://a.test/")
		u, err := r.URL.Parse("http://a.test/" + path)
		if err != nil {
			return
		}
		r.URL = u
		if w := status(h, r); strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%q got %q", path, w.Body)
		}
	})
}
