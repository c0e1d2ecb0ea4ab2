package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/cmd/stent/bench"
)

// benchTarget is a lean echo.
func benchTarget(t *testing.T) (url string) {
	t.Helper()
	echo := bench.NewServer()
	t.Cleanup(echo.Close)
	server := httptest.NewServer(echo)
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func TestBench(t *testing.T) {
	for mode, want := range map[string][]string{
		"echo":  {"echo: 4 connections, 64 B messages, 1 in flight on each", "per second", "latency p99.9"},
		"rate":  {"1,000 a second in all", "latency p99"},
		"idle":  {"alive", "handshake p50"},
		"churn": {"sessions", "per second", "handshake p99"},
		"bulk":  {"1.0 MiB messages", "payload, each way", "iB/s"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			url := benchTarget(t)
			code, stdout, stderr := stent(t, "bench", url, "--mode", mode, "-n", "4", "--duration", "500ms", "--warmup", "0s")
			if code != 0 || stderr != "" {
				t.Fatalf("got %d, %q", code, stderr)
			}
			for _, w := range append(want, url, "measured") {
				if !strings.Contains(stdout, w) {
					t.Errorf("no %q in\n%s", w, stdout)
				}
			}
		})
	}
}

func TestBenchCompareJSON(t *testing.T) {
	a, b := benchTarget(t), benchTarget(t)
	args := []string{"bench", a, "--compare", b, "-n", "2", "--duration", "1s", "--warmup", "0s"}
	code, stdout, stderr := stent(t, append(args, "--json")...)
	if code != 0 || stderr != "" {
		t.Fatalf("got %d, %q", code, stderr)
	}
	var got struct {
		Mode    string
		Targets []struct {
			URL      string
			Messages int64
			Latency  struct{ P50, P99 float64 } `json:"latency_us"`
		}
		Ratio struct {
			PerSecond struct{ Median float64 } `json:"per_second"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Mode != "echo" || len(got.Targets) != 2 || got.Ratio.PerSecond.Median <= 0 {
		t.Fatalf("got %s", stdout)
	}
	for i, target := range got.Targets {
		if target.URL != []string{a, b}[i] || target.Messages == 0 || target.Latency.P50 == 0 || target.Latency.P99 < target.Latency.P50 {
			t.Errorf("target %d: got %+v", i, target)
		}
	}
	if code, stdout, _ := stent(t, args...); code != 0 || !strings.Contains(stdout, "ratio (rounds)") {
		t.Errorf("got %d and no ratio in\n%s", code, stdout)
	}
}

func TestBenchFails(t *testing.T) {
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refuses.Close()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"refused", []string{"ws" + strings.TrimPrefix(refuses.URL, "http")}, exitFailed, "refused with 403 Forbidden"},
		{"no URL", nil, exitUsage, "<url>"},
		{"no WebSocket's URL", []string{"ftp://x"}, exitUsage, "ws://"},
		{"no mode", []string{"ws://x", "--mode", "fast"}, exitUsage, "echo"},
		{"no size", []string{"ws://x", "--size", "big"}, exitUsage, "--size"},
		{"no duration", []string{"ws://x", "--duration", "0s"}, exitUsage, "duration"},
		{"no header", []string{"ws://x", "--header", "secret"}, exitUsage, "NAME:VALUE"},
		{"three processes", []string{"ws://x", "--cpu", "1,2,3"}, exitUsage, "--cpu"},
		{"a broken header", []string{"ws://x", "--header", "a b: c"}, exitUsage, "NAME:VALUE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := stent(t, append([]string{"bench"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("got %d, %q, want %d and %q", code, stderr, tt.code, tt.want)
			}
			if stdout != "" {
				t.Errorf("got %q on standard output", stdout)
			}
			if strings.Contains(stderr, "secret") {
				t.Errorf("a header's value in %q", stderr)
			}
		})
	}
}

// What went wrong under load is printed with what was measured, and fails.
func TestBenchErrors(t *testing.T) {
	rep := bench.Report{Targets: []bench.TargetReport{{URL: "ws://a", Errors: 1234, ErrorsByReason: map[string]int64{"broken echo": 1234}}}}
	if err := benchErrors(rep); err == nil || err.Error() != "ws://a: 1,234 × broken echo" {
		t.Errorf("got %v", err)
	}
	if err := benchErrors(bench.Report{Targets: []bench.TargetReport{{URL: "ws://a"}}}); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

// TestBenchInterrupted interrupts a real process under load.
func TestBenchInterrupted(t *testing.T) {
	loaded := make(chan struct{})
	var messages atomic.Int64
	var lists atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		lists.Store(req.Header.Get("X-Wants") == "a, list")
		conn, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, data, err := conn.Read(req.Context())
			if err != nil || conn.Write(req.Context(), kind, data) != nil {
				return
			}
			if messages.Add(1) == 1000 {
				close(loaded)
			}
		}
	}))
	defer server.Close()
	p := startProcess(t, nil, "bench", server.URL, "--duration", "1h", "--warmup", "0s", "-H", "X-Wants: a, list")
	<-loaded
	p.Process.Signal(os.Interrupt)
	p.exits(t, 0)
	if !lists.Load() {
		t.Error("a header with a comma did not arrive as it was")
	}
}

// TestBenchEcho runs what deploy/bench does, as processes.
func TestBenchEcho(t *testing.T) {
	address := freeAddress(t)
	echo := startProcess(t, nil, "bench-echo", "--listen", address)
	open(t, address).CloseNow()
	args := []string{"bench", "ws://" + address, "-n", "2", "--duration", "1s", "--warmup", "0s"}
	if runtime.GOOS == "linux" {
		args = append(args, "--cpu", strconv.Itoa(echo.Process.Pid))
	}
	code, stdout, stderr := stent(t, args...)
	if code != 0 || runtime.GOOS == "linux" && !strings.Contains(stdout, "CPU per message") {
		t.Errorf("got %d, %q and no CPU in\n%s", code, stderr, stdout)
	}
	echo.Process.Signal(syscall.SIGTERM)
	echo.exits(t, 0)
}
