package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// fakeAdmin answers like the admin API, in two pages of sessions.
func fakeAdmin(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"title":"Service Unavailable","detail":"draining"}`)
	})
	mux.HandleFunc("GET /api/sessions", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if route := q.Get("route"); route != "" && route != "/room" {
			fmt.Fprint(w, `{"sessions":[],"next":""}`)
			return
		}
		switch q.Get("cursor") {
		case "":
			fmt.Fprint(w, `{"sessions":[{"session":"s-1","id":"user:1","route":"/room","upstream":"chat","target":"blue","state":"open","mode":"relay","remote":"192.0.2.1","opened":"2026-01-02T03:04:05Z","attempt":1,"client":{"messages":3,"bytes":2048}}],"next":"2"}`)
		case "2":
			fmt.Fprint(w, `{"sessions":[{"session":"s-2","id":"\u001b[2J","route":"/room","state":"held","attempt":4}],"next":""}`)
		default:
			t.Errorf("cursor %q", q.Get("cursor"))
		}
	})
	mux.HandleFunc("GET /api/upstreams", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"upstreams":[{"name":"chat","balance":"p2c","targets":[{"name":"blue","url":"ws://10.0.0.1:4000","state":"up","sessions":3,"dials":9,"failures":1}]}]}`)
	})
	mux.HandleFunc("GET /api/tree", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"stent","kind":"supervisor","restarts":1,"children":[
			{"name":"control","kind":"supervisor","restarts":1,"children":[{"name":"admin","kind":"service","restarts":1}]},
			{"name":"sessions","kind":"supervisor","restarts":0,"children":[{"name":"partition 0","kind":"supervisor","restarts":0,"workers":12}]}]}`)
	})
	return mux
}

func TestAdminCommands(t *testing.T) {
	server := httptest.NewServer(fakeAdmin(t))
	defer server.Close()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want []string // in what is printed
		not  string
	}{
		{"alive", []string{"health"}, 0, []string{"alive"}, ""},
		{"not ready", []string{"health", "--ready"}, 1, []string{"503", "draining"}, ""},
		{"sessions", []string{"sessions"}, 0, []string{"s-1", "chat/blue", "3 / 2.0 KiB", "s-2", "held", `"\x1b[2J"`}, "\x1b"},
		{"sessions list", []string{"sessions", "list"}, 0, []string{"s-1", "s-2"}, ""},
		{"at most one session", []string{"sessions", "--limit", "1"}, 0, []string{"s-1"}, "s-2"},
		{"sessions of another route", []string{"sessions", "list", "--route", "/none"}, 0, []string{"SESSION"}, "s-1"},
		{"upstreams", []string{"upstreams", "--token", "hunter2"}, 0, []string{"chat", "p2c", "blue", "ws://10.0.0.1:4000", "up", "9"}, ""},
		{"upstreams without the token", []string{"upstreams"}, 1, []string{"401"}, "hunter2"},
		{"tree", []string{"tree"}, 0, []string{"stent  1 restarts\n├── control  1 restarts\n│   └── admin  1 restarts\n└── sessions\n    └── partition 0  12 sessions\n"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := stent(t, append(tt.args, "--admin", server.URL)...)
			if code != tt.code {
				t.Errorf("exit code: got %d, want %d: %s", code, tt.code, stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("want %q in\n%s%s", want, stdout, stderr)
				}
			}
			if tt.not != "" && strings.Contains(stdout+stderr, tt.not) {
				t.Errorf("%q in\n%s%s", tt.not, stdout, stderr)
			}
		})
	}
}

func TestAdminJSON(t *testing.T) {
	server := httptest.NewServer(fakeAdmin(t))
	defer server.Close()
	for _, command := range []string{"sessions", "tree"} {
		code, stdout, stderr := stent(t, command, "--json", "--admin", server.URL)
		if code != 0 || !json.Valid([]byte(stdout)) {
			t.Errorf("%s: got %d %q %q", command, code, stdout, stderr)
		}
	}
}

func TestAdminAddresses(t *testing.T) {
	server := httptest.NewServer(fakeAdmin(t))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := net.SplitHostPort(host)

	socket := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := httptest.NewUnstartedServer(fakeAdmin(t))
	local.Listener.Close()
	local.Listener = listener
	local.Start()
	defer local.Close()

	for _, address := range []string{server.URL, server.URL + "/", host, ":" + port, "unix:" + socket} {
		t.Run(address, func(t *testing.T) {
			t.Setenv("STENT_ADMIN", address)
			if code, _, stderr := stent(t, "health"); code != 0 {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

func TestAdminThatIsNotThere(t *testing.T) {
	code, _, stderr := stent(t, "health", "--admin", "unix:"+filepath.Join(t.TempDir(), "none.sock"))
	if code != exitFailed || !strings.Contains(stderr, "ask the admin API") {
		t.Errorf("got %d %q", code, stderr)
	}
}
