package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echoing starts a lean echo and returns its address.
func echoing(t *testing.T) string {
	t.Helper()
	echo := NewServer()
	t.Cleanup(echo.Close)
	return serving(t, echo)
}

func serving(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// each is a server that calls serve for every WebSocket.
func each(serve func(ctx context.Context, c *websocket.Conn)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		serve(req.Context(), c)
	})
}

// short is a run that is over soon.
func short(mode Mode, urls ...string) Config {
	cfg := Config{Mode: mode, Connections: 3, InFlight: 1, Rate: 500, Duration: 200 * time.Millisecond, Warmup: 20 * time.Millisecond, patience: time.Minute, hurry: time.Minute}
	for _, u := range urls {
		cfg.Targets = append(cfg.Targets, Target{URL: u})
	}
	return cfg
}

func run(t *testing.T, cfg Config) Report {
	t.Helper()
	rep, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// until runs it for as long as it takes, however slow the machine is.
func until(t *testing.T, cfg Config, enough func(Progress) bool) Report {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Duration = time.Hour
	cfg.Progress = func(p Progress) {
		if p.Phase == Measuring && enough(p) {
			cancel()
		}
	}
	rep, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !rep.Interrupted {
		t.Error("not reported as interrupted")
	}
	return rep
}

// counted is enough for a run that counts.
func counted(p Progress) bool { return p.Count > 0 }

func TestModes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"echo", func(*Config) {}},
		{"echo of one byte", func(c *Config) { c.Size = 1 }},
		{"echo, several in flight", func(c *Config) { c.InFlight = 100 }},
		{"echo, more in flight than a socket takes", func(c *Config) { c.InFlight, c.Size = 50, 100_000 }},
		{"rate", func(c *Config) { c.Mode = Rate }},
		{"rate of large messages", func(c *Config) { c.Mode, c.Size, c.Rate = Rate, 200_000, 100 }},
		{"idle", func(c *Config) { c.Mode = Idle }},
		{"churn", func(c *Config) { c.Mode = Churn }},
		{"churn with large messages", func(c *Config) { c.Mode, c.Size = Churn, 100_000 }},
		{"bulk", func(c *Config) { c.Mode = Bulk }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := short(Echo, echoing(t))
			tt.change(&cfg)
			var rep Report
			switch cfg.Mode {
			case Rate, Idle:
				rep = run(t, cfg)
			case Echo, Bulk, Churn:
				rep = until(t, cfg, counted)
			}
			got := rep.Targets[0]
			if got.Errors != 0 || got.Seconds == 0 {
				t.Errorf("got %+v, want no errors", got)
			}
			switch cfg.Mode {
			case Echo, Bulk:
				if got.Messages == 0 || got.MessagesPerSecond == 0 || got.Latency == nil || got.Latency.P50 > got.Latency.Max {
					t.Errorf("got %+v, want messages", got)
				}
			case Rate:
				// Each message that was due counts, however long it took.
				if want := got.Seconds * cfg.Rate; got.Latency == nil || math.Abs(float64(got.Latency.Count)-want) > 1 {
					t.Errorf("got %+v of %+v, want %g messages that were due", got.Latency, got, want)
				}
			case Churn:
				if got.Sessions == 0 || got.SessionsPerSecond == 0 || got.Latency == nil || got.Connect.Count < got.Sessions {
					t.Errorf("got %+v, want sessions", got)
				}
			case Idle:
				if got.Alive != 3 || got.Lost != 0 || got.Connect.Count != 3 {
					t.Errorf("got %+v, want 3 that are alive", got)
				}
			}
		})
	}
}

// A server that stalls once is charged for every message that was due
// meanwhile. A generator that waits with the server would have one such
// message, far beyond the 99th percentile.
func TestRateChargesAStall(t *testing.T) {
	t.Parallel()
	const stall = 400 * time.Millisecond
	for _, tt := range []struct {
		name string
		size int
		rate float64
	}{
		{"small", 64, 1000},
		{"more than the sockets take", 128 << 10, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var messages atomic.Int64
			cfg := short(Rate, serving(t, each(func(ctx context.Context, c *websocket.Conn) {
				for {
					kind, data, err := c.Read(ctx)
					if err != nil {
						return
					}
					if messages.Add(1) == 50 {
						time.Sleep(stall)
					}
					if c.Write(ctx, kind, data) != nil {
						return
					}
				}
			})))
			cfg.Connections, cfg.Size, cfg.Rate, cfg.Duration, cfg.Warmup = 1, tt.size, tt.rate, time.Second, 0
			got := run(t, cfg).Targets[0]
			if want := float64(stall.Microseconds()) * 0.8; got.Latency.P99 < want {
				t.Errorf("p99: got %g µs, want %g at least", got.Latency.P99, want)
			}
			// A quarter of the messages and more was due in the stall.
			if want := float64(stall.Microseconds()) * 0.2; got.Latency.P90 < want {
				t.Errorf("p90: got %g µs, want %g at least", got.Latency.P90, want)
			}
			if got.Errors != 0 {
				t.Errorf("got %v, want no errors", got.ErrorsByReason)
			}
		})
	}
}

// What is never answered counts, with the time that it was waited for.
func TestUnansweredMessagesCount(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var messages atomic.Int64
	cfg := short(Rate, serving(t, each(func(serving context.Context, c *websocket.Conn) {
		for {
			kind, data, err := c.Read(serving)
			if err != nil {
				return
			}
			switch n := messages.Add(1); {
			case n == 1: // the probe
				c.Write(serving, kind, data)
			case n == 50:
				cancel() // the sooner it is over
			}
		}
	})))
	cfg.Duration, cfg.Warmup, cfg.hurry = time.Minute, 0, interruptedTimeout
	rep, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := rep.Targets[0]
	if !rep.Interrupted {
		t.Error("not reported as interrupted")
	}
	if got.Messages != 0 || got.Errors < 40 || got.Latency.Count != got.Errors || got.ErrorsByReason[errUnanswered.Error()] != got.Errors {
		t.Errorf("got %+v, want only unanswered messages", got)
	}
	if want := float64(interruptedTimeout.Microseconds()); got.Latency.Min < want*0.99 {
		t.Errorf("latency: got %g µs at least, want %g", got.Latency.Min, want)
	}
}

// A rate that no machine sends is an error, not a run that never ends.
func TestRateBeyondTheGenerator(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cfg := short(Rate, echoing(t))
	cfg.Rate, cfg.Size, cfg.Duration, cfg.Warmup = maxRate, 10_000, time.Minute, 0
	cfg.hurry = 100 * time.Millisecond
	cfg.Progress = func(Progress) { cancel() }
	rep, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := rep.Targets[0]; got.ErrorsByReason[errTooFast.Error()]+got.ErrorsByReason["message not sent: "+errOverloaded.Error()] == 0 {
		t.Errorf("got %v, want messages that were not sent", got.ErrorsByReason)
	}
}

func TestBrokenEchoIsFound(t *testing.T) {
	type answer func(ctx context.Context, c *websocket.Conn, data []byte)
	write := func(ctx context.Context, c *websocket.Conn, data []byte) { c.Write(ctx, websocket.MessageBinary, data) }
	for _, tt := range []struct {
		name   string
		answer answer // to one message
		want   string
	}{
		{"a byte differs", func(ctx context.Context, c *websocket.Conn, data []byte) {
			data[len(data)-1] ^= 1
			write(ctx, c, data)
		}, "broken echo"},
		{"the number differs", func(ctx context.Context, c *websocket.Conn, data []byte) {
			data[3]++
			write(ctx, c, data)
		}, "broken echo"},
		{"another connection's", func(ctx context.Context, c *websocket.Conn, data []byte) {
			data[7]++
			write(ctx, c, data)
		}, "broken echo"},
		{"too short", func(ctx context.Context, c *websocket.Conn, data []byte) { write(ctx, c, data[:len(data)-1]) }, "broken echo"},
		{"too long", func(ctx context.Context, c *websocket.Conn, data []byte) { write(ctx, c, append(data, 0)) }, "broken echo"},
		{"nothing", func(ctx context.Context, c *websocket.Conn, data []byte) { write(ctx, c, nil) }, "broken echo"},
		{"twice", func(ctx context.Context, c *websocket.Conn, data []byte) { write(ctx, c, data); write(ctx, c, data) }, "broken echo"},
		{"as text", func(ctx context.Context, c *websocket.Conn, data []byte) { c.Write(ctx, websocket.MessageText, data) }, "not a binary message"},
		{"closed", func(ctx context.Context, c *websocket.Conn, data []byte) { c.Close(1011, "") }, "closed by the server"},
		{"cut off", func(ctx context.Context, c *websocket.Conn, data []byte) { c.CloseNow() }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := short(Echo, serving(t, each(func(ctx context.Context, c *websocket.Conn) {
				for n := 1; ; n++ {
					kind, data, err := c.Read(ctx)
					if err != nil {
						return
					}
					if n == 3 {
						tt.answer(ctx, c, data)
						continue
					}
					if c.Write(ctx, kind, data) != nil {
						return
					}
				}
			})))
			cfg.InFlight = 2
			// Over before its time: no connection is left.
			cfg.Duration = time.Minute
			got := run(t, cfg).Targets[0]
			found := int64(0)
			for reason, n := range got.ErrorsByReason {
				if strings.Contains(reason, tt.want) && reason != errUnanswered.Error() {
					found += n
				}
			}
			if found != 3 {
				t.Errorf("got %v, want 3 × %q", got.ErrorsByReason, tt.want)
			}
		})
	}
}

func TestTargetsThatAreRefused(t *testing.T) {
	answer := func(status int, header ...string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		})
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	secure := httptest.NewUnstartedServer(NewServer())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for _, tt := range []struct {
		name, url, want string
	}{
		{"403", serving(t, answer(403)), "refused with 403 Forbidden"},
		{"503", serving(t, answer(503)), "refused with 503 Service Unavailable"},
		{"a page", serving(t, answer(200)), "refused with 200 OK"},
		{"a redirect", serving(t, answer(302, "Location", "/")), "refused with 302 Found"},
		{"another key's accept", serving(t, answer(101, "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), "accepts no WebSocket"},
		{"nobody there", "ws" + strings.TrimPrefix(gone.URL, "http"), "connection refused"},
		{"a certificate of nobody's", "wss" + strings.TrimPrefix(secure.URL, "https"), "certificate"},
		{"no echo", serving(t, each(func(ctx context.Context, c *websocket.Conn) { c.Close(1000, "") })), "the first echo: closed by the server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Run(t.Context(), short(Echo, tt.url))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if refused, ok := errors.AsType[*RefusedError](err); ok != strings.HasPrefix(tt.want, "refused") || ok && !strings.HasSuffix(tt.want, refused.Status) {
				t.Errorf("got %#v, want %q", err, tt.want)
			}
		})
	}
}

// A target may take one WebSocket and refuse more.
func TestRefusedWhileConnecting(t *testing.T) {
	t.Parallel()
	echo := NewServer()
	defer echo.Close()
	var n atomic.Int64
	url := serving(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if n.Add(1) > 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		echo.ServeHTTP(w, req)
	}))
	_, err := Run(t.Context(), short(Echo, url))
	if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Status != "503 Service Unavailable" {
		t.Errorf("got %v, want it refused", err)
	}
	n.Store(0)
	got := until(t, short(Churn, url), func(Progress) bool { return n.Load() > 10 }).Targets[0] // goes on, and counts
	if got.Errors == 0 || got.ErrorsByReason["refused with 503 Service Unavailable"] == 0 {
		t.Errorf("churn: got %v, want refusals", got.ErrorsByReason)
	}
}

func TestIdleFindsTheLost(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	cfg := short(Idle, serving(t, each(func(ctx context.Context, c *websocket.Conn) {
		ends := n.Add(1) == 3 // the second after the probe
		for {
			kind, data, err := c.Read(ctx)
			if err != nil || c.Write(ctx, kind, data) != nil || ends {
				return
			}
		}
	})))
	got := run(t, cfg).Targets[0]
	if got.Alive != 2 || got.Lost != 1 || got.Errors == 0 {
		t.Errorf("got %+v, want 2 alive and 1 lost", got)
	}
}

func TestCompare(t *testing.T) {
	for _, mode := range []Mode{Echo, Rate, Idle, Churn} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			cfg := short(mode, echoing(t), echoing(t))
			cfg.Duration = time.Second
			if canWatch {
				cfg.Targets[0].PID, cfg.Targets[1].PID = os.Getpid(), os.Getpid()
			}
			var last atomic.Pointer[Progress]
			cfg.Progress = func(p Progress) { last.Store(&p) }
			rep := run(t, cfg)
			if len(rep.Targets) != 2 || rep.Ratio == nil {
				t.Fatalf("got %+v, want two targets and a ratio", rep)
			}
			want := minRounds
			if mode == Idle {
				want = 1
			}
			for _, got := range rep.Targets {
				if got.Rounds != want || got.Errors != 0 {
					t.Errorf("got %+v, want %d rounds without an error", got, want)
				}
			}
			for name, r := range map[string]*Ratio{"per second": rep.Ratio.PerSecond, "p50": rep.Ratio.P50, "p99": rep.Ratio.P99} {
				if given := (mode != Rate || name != "per second") && mode != Idle; (r != nil) != given {
					t.Errorf("%s: got %+v", name, r)
				}
				if r != nil && !(0 < r.Min && r.Min <= r.Median && r.Median <= r.Max) {
					t.Errorf("%s: got %+v", name, r)
				}
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "read", Net: "tcp", Addr: &net.TCPAddr{Port: 1}, Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "read: connection reset by peer"},
		{fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), "dial: connection refused"},
		{fmt.Errorf("read the answer: %w", io.ErrUnexpectedEOF), "the connection ended"},
		{errBroken, "broken echo"},
	} {
		if got := kindOf(tt.err); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
	var f faults
	for n := range 2 * maxKinds {
		f.add(fmt.Errorf("kind %d", n), 1)
	}
	if got := f.all(); len(got) > maxKinds+1 || got["others"] == 0 {
		t.Errorf("got %d kinds", len(got))
	}
}

func TestRatio(t *testing.T) {
	for _, tt := range []struct {
		rounds []float64
		want   Ratio
	}{
		{[]float64{2}, Ratio{2, 2, 2}},
		{[]float64{3, 1}, Ratio{2, 1, 3}},
		{[]float64{9, 1, 2}, Ratio{2, 1, 9}},
	} {
		if got := ratio(tt.rounds); *got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.rounds, *got, tt.want)
		}
	}
	if got := ratio(nil); got != nil {
		t.Errorf("got %v, want none", got)
	}
}

// Interrupted before there is anything to report it still ends, and fast.
func TestInterruptedEarly(t *testing.T) {
	url := echoing(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, short(Echo, url)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
}

func TestInterruptedKeepsWhatItHas(t *testing.T) {
	for _, mode := range []Mode{Echo, Rate, Idle, Churn, Bulk} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			rep := until(t, short(mode, echoing(t)), func(p Progress) bool { return p.Count > 0 || mode == Idle })
			got := rep.Targets[0]
			if got.Seconds == 0 || got.Errors != 0 || got.Messages+got.Sessions+got.Alive == 0 {
				t.Errorf("got %+v, want what was measured", got)
			}
		})
	}
}

func TestTLSAndHeaders(t *testing.T) {
	t.Parallel()
	echo := NewServer()
	defer echo.Close()
	var wrong atomic.Pointer[http.Request]
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer x" || req.Host != "chat.example.com" || req.URL.RequestURI() != "/a?b=c" {
			wrong.Store(req)
		}
		echo.ServeHTTP(w, req)
	}))
	defer server.Close()
	cfg := short(Churn, "wss"+strings.TrimPrefix(server.URL, "https")+"/a?b=c")
	cfg.Insecure = true
	cfg.Header = http.Header{"Authorization": {"Bearer x"}, "Host": {"chat.example.com"}}
	if got := until(t, cfg, counted).Targets[0]; got.Sessions == 0 || got.Errors != 0 {
		t.Errorf("got %+v", got)
	}
	if req := wrong.Load(); req != nil {
		t.Errorf("got a request for %s%s with %v", req.Host, req.URL, req.Header)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"mode", func(c *Config) { c.Mode = "fast" }, "fast"},
		{"no target", func(c *Config) { c.Targets = nil }, "0 targets"},
		{"scheme", func(c *Config) { c.Targets[0].URL = "ftp://x" }, "ftp://x"},
		{"host", func(c *Config) { c.Targets[0].URL = "ws:///x" }, "no host"},
		{"fragment", func(c *Config) { c.Targets[0].URL = "ws://x/#y" }, "fragments"},
		{"connections", func(c *Config) { c.Connections = 0 }, "0 connections"},
		{"size", func(c *Config) { c.Size = -1 }, "-1 bytes"},
		{"in flight", func(c *Config) { c.InFlight = 0 }, "0 messages"},
		{"rate", func(c *Config) { c.Mode, c.Rate = Rate, 0 }, "rate of 0"},
		{"no rate", func(c *Config) { c.Mode, c.Rate = Rate, math.NaN() }, "rate of NaN"},
		{"duration", func(c *Config) { c.Duration = 0 }, "duration"},
		{"warm-up", func(c *Config) { c.Warmup = -1 }, "warm-up"},
		{"process", func(c *Config) { c.Targets[0].PID = math.MaxInt32 }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := short(Echo, "ws://127.0.0.1:1")
			tt.change(&cfg)
			_, err := Run(t.Context(), cfg)
			if _, ok := errors.AsType[*ConfigError](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a *ConfigError with %q", err, tt.want)
			}
		})
	}
}

// The names are what scripts read.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	cfg := short(Echo, echoing(t), echoing(t))
	cfg.Duration = time.Second
	rep := run(t, cfg)
	data, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"":               {"mode", "connections", "size", "in_flight", "interrupted", "targets", "ratio"},
		"targets":        {"url", "rounds", "seconds", "messages", "messages_per_second", "bytes_per_second", "latency_us", "connect_us", "errors"},
		"latency":        {"count", "min", "mean", "p50", "p90", "p99", "p999", "max"},
		"ratio":          {"per_second", "p50", "p99"},
		"ratio of a p99": {"median", "min", "max"},
	}
	target := got["targets"].([]any)[0].(map[string]any)
	ratio := got["ratio"].(map[string]any)
	for part, object := range map[string]map[string]any{
		"": got, "targets": target, "latency": target["latency_us"].(map[string]any), "ratio": ratio, "ratio of a p99": ratio["p99"].(map[string]any),
	} {
		for _, name := range want[part] {
			if _, ok := object[name]; !ok {
				t.Errorf("%s: no %q in %v", part, name, object)
			}
		}
	}
}
