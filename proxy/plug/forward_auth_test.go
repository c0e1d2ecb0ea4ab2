package plug

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
)

// service runs an authorization service and returns the options of a plug
// that asks it.
func service(t *testing.T, answer http.HandlerFunc) *config.ForwardAuthPlug {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	c := config.DefaultForwardAuthPlug()
	c.URL, c.Timeout = srv.URL+"/verify", config.Duration(10*time.Second)
	return &c
}

// guard compiles the plug in front of a handler that lets all in.
func guard(t *testing.T, c *config.ForwardAuthPlug, env Env) http.Handler {
	t.Helper()
	p := compile(t, "forward_auth", c, env)
	return p.Wrap(ok(nil))
}

func TestForwardAuthAsks(t *testing.T) {
	var got *http.Request
	c := service(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Add("X-User", "alice")
		w.Header().Add("X-Role", "a")
		w.Header().Add("X-Role", "b")
		w.Header().Set("X-Other", "kept back")
	})
	c.Set, c.ID, c.Headers = []string{"x-user", "X-Role", "X-Absent"}, "user:{X-User}", append(c.Headers, "user-agent")
	p := compile(t, "forward_auth", c, Env{})
	if want := "X-User X-Role X-Absent"; strings.Join(p.Sets, " ") != want {
		t.Errorf("sets %v, want %s", p.Sets, want)
	}
	r, info := request("GET", "/a%2Fb?token=x&y=%zz",
		"Authorization", "Bearer t", "Cookie", "a=1", "Cookie", "b=2", "User-Agent", "me", "X-Secret", "not copied",
		"Connection", "Upgrade", "Upgrade", "websocket")
	info.RequestID = "id-1"
	if w := status(p.Wrap(ok(nil)), r); w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	want := map[string]string{
		"Authorization": "Bearer t", "Cookie": "a=1|b=2", "User-Agent": "me", "X-Secret": "", "Upgrade": "", "Connection": "",
		"X-Forwarded-Method": "GET", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "example.com",
		"X-Forwarded-Uri": "/a%2Fb?token=x&y=%zz", "X-Forwarded-For": "192.0.2.1", "X-Request-Id": "id-1",
	}
	for name, value := range want {
		if is := strings.Join(got.Header.Values(name), "|"); is != value {
			t.Errorf("asked with %s %q, want %q", name, is, value)
		}
	}
	if got.Method != "GET" || got.URL.Path != "/verify" || got.ContentLength != 0 {
		t.Errorf("asked %s %s with %d bytes", got.Method, got.URL, got.ContentLength)
	}
	if info.ID != "user:alice" {
		t.Errorf("id %q", info.ID)
	}
	up := http.Header{"X-User": {"forged"}, "X-Absent": {"forged"}, "X-Kept": {"1"}}
	info.ApplyRequest(up)
	if up.Get("X-User") != "alice" || strings.Join(up["X-Role"], "|") != "a|b" || up["X-Absent"] != nil || up["X-Other"] != nil || up.Get("X-Kept") != "1" {
		t.Errorf("sent up %v", up)
	}
}

// A refusal reaches the client as it is.
func TestForwardAuthRefusal(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
	}{{401, `{"error":"who?"}`}, {403, ""}, {302, "to the login"}, {429, "later"}, {418, strings.Repeat("x", maxAnswerBody)}, {500, "oh"}, {304, ""}} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			c := service(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header()["X-Own"] = []string{"1", "2"}
				w.Header().Set("Location", "https://login.test/?back=/x")
				w.Header().Set("Set-Cookie", "state=1")
				w.Header().Set("Retry-After", "7")
				w.Header().Set("Keep-Alive", "5")
				w.WriteHeader(tt.status)
				w.Write([]byte(tt.body))
			})
			r, info := request("GET", "/")
			info.EditResponse(func(h http.Header) { h.Set("X-Edited", "yes") })
			w := status(guard(t, c, Env{}), r)
			h := w.Header()
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("got %d and %d bytes, want %d and %d", w.Code, w.Body.Len(), tt.status, len(tt.body))
			}
			if strings.Join(h["X-Own"], "|") != "1|2" || h.Get("Location") != "https://login.test/?back=/x" || h.Get("Set-Cookie") != "state=1" ||
				h.Get("Retry-After") != "7" || h.Get("X-Edited") != "yes" || h.Get("Keep-Alive") != "" {
				t.Errorf("header %v", h)
			}
		})
	}
}

// Whatever is wrong with the service, nobody gets in, and the log says why
// without what the client has sent.
func TestForwardAuthFailsClosed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := listener.Addr().String()
	listener.Close()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		edit   func(*config.ForwardAuthPlug)
		want   int
	}{
		{name: "hangs", want: 504, answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{name: "hangs inside of its refusal", want: 504, answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{name: "is not there", want: 502, edit: func(c *config.ForwardAuthPlug) { c.URL = "http://" + refused }},
		{name: "speaks no HTTP", want: 502, answer: raw("+OK ready\r\n")},
		{name: "breaks off", want: 502, answer: raw("HTTP/1.1 200 OK\r\nContent-")},
		{name: "breaks off inside of its refusal", want: 502, answer: raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nabc")},
		{name: "switches protocols", want: 502, answer: raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")},
		{name: "an odd status", want: 502, answer: raw("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n")},
		{name: "a huge refusal", want: 502, answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			for range 100 {
				w.Write(make([]byte, 64<<10))
			}
		}},
		{name: "a huge header", want: 502, answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("x", 2*maxAnswerHeader))
		}},
		{name: "lacks the id", want: 502, answer: func(http.ResponseWriter, *http.Request) {},
			edit: func(c *config.ForwardAuthPlug) { c.ID = "user:{X-User}" }},
		{name: "an id that is no text", want: 502, answer: raw("HTTP/1.1 200 OK\r\nX-User: \xff\r\nContent-Length: 0\r\n\r\n"),
			edit: func(c *config.ForwardAuthPlug) { c.ID = "user:{X-User}" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := service(t, tt.answer)
			if tt.want == 504 {
				c.Timeout = config.Duration(50 * time.Millisecond)
			}
			if tt.edit != nil {
				tt.edit(c)
			}
			core, logs := observer.New(zapcore.InfoLevel)
			r, _ := request("GET", "/?token=hunter2", "Authorization", "Bearer hunter2")
			w := status(guard(t, c, Env{Log: zap.New(core)}), r)
			if w.Code != tt.want || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.want)
			}
			if all := fmt.Sprint(logs.All(), w.Body); logs.Len() != 1 || strings.Contains(all, "hunter2") {
				t.Errorf("logged %s", all)
			}
		})
	}
}

// raw answers with bytes of its own and closes.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		rw.WriteString(text)
		rw.Flush()
	}
}

// A body of any length behind a 2xx is no reason to wait, nor to read it.
func TestForwardAuthDoesNotReadWhatAdmits(t *testing.T) {
	c := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	r, _ := request("GET", "/")
	if w := status(guard(t, c, Env{}), r); w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
}

// A redirect is the service's answer; it is not followed.
func TestForwardAuthFollowsNoRedirect(t *testing.T) {
	var asked atomic.Int32
	c := service(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, "/yes", http.StatusFound)
	})
	r, _ := request("GET", "/")
	if w := status(guard(t, c, Env{}), r); w.Code != 302 || w.Header().Get("Location") != "/yes" || asked.Load() != 1 {
		t.Errorf("got %d to %q after %d questions", w.Code, w.Header().Get("Location"), asked.Load())
	}
}

// A client that leaves takes its question with it.
func TestForwardAuthClientLeaves(t *testing.T) {
	asked, over := make(chan struct{}), make(chan struct{})
	c := service(t, func(_ http.ResponseWriter, r *http.Request) {
		bufio.NewReader(r.Body).Peek(1) // net/http watches the connection from here
		close(asked)
		<-r.Context().Done()
		close(over)
	})
	r, _ := request("GET", "/")
	ctx, cancel := context.WithCancel(r.Context())
	h := guard(t, c, Env{})
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- status(h, r.WithContext(ctx)) }()
	<-asked
	cancel()
	if w := <-done; w.Body.Len() > 0 {
		t.Errorf("answered %s", w.Body)
	}
	<-over
}

func TestForwardAuthCache(t *testing.T) {
	seconds := func(n int) config.Duration { return config.Duration(time.Duration(n) * time.Second) }
	type call struct {
		path, cookie, client string
		want                 int
		asks                 bool // the service is asked
	}
	for _, tt := range []struct {
		name  string
		cache config.ForwardAuthCache
		calls []call
	}{
		{"off", config.ForwardAuthCache{}, []call{{"/", "a", "", 200, true}, {"/", "a", "", 200, true}, {"/", "bad", "", 403, true}, {"/", "bad", "", 403, true}}},
		{"positive", config.ForwardAuthCache{Positive: seconds(60)}, []call{
			{"/", "a", "", 200, true}, {"/", "a", "", 200, false}, {"/", "bad", "", 403, true}, {"/", "bad", "", 403, true},
		}},
		{"negative", config.ForwardAuthCache{Negative: seconds(60)}, []call{
			{"/", "a", "", 200, true}, {"/", "a", "", 200, true}, {"/", "bad", "", 403, true}, {"/", "bad", "", 403, false},
		}},
		{"another question", config.ForwardAuthCache{Positive: seconds(60), Negative: seconds(60)}, []call{
			{"/", "a", "", 200, true}, {"/b", "a", "", 200, true}, {"/?c", "a", "", 200, true}, {"/", "b", "", 200, true},
			{"/", "a", "192.0.2.9", 200, true}, {"/", "a", "", 200, false},
		}},
		{"not what is one client's, nor failures", config.ForwardAuthCache{Positive: seconds(60), Negative: seconds(60)}, []call{
			{"/", "cookie", "", 403, true}, {"/", "cookie", "", 403, true}, {"/", "down", "", 503, true}, {"/", "down", "", 503, true},
			{"/", "large", "", 403, true}, {"/", "large", "", 403, true},
		}},
		{"until it is old", config.ForwardAuthCache{Positive: 1}, []call{{"/", "a", "", 200, true}, {"/", "a", "", 200, true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int32
			c := service(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				switch r.Header.Get("Cookie") {
				case "bad":
					w.WriteHeader(403)
				case "cookie":
					w.Header().Set("Set-Cookie", "x=1")
					w.WriteHeader(403)
				case "large":
					w.WriteHeader(403)
					w.Write(make([]byte, maxAnswerKept+1))
				case "down":
					w.WriteHeader(503)
				default:
					w.Header().Set("X-User", r.Header.Get("Cookie"))
				}
			})
			c.Cache, c.Set, c.ID = tt.cache, []string{"X-User"}, "u:{X-User}"
			h := guard(t, c, Env{})
			for i, call := range tt.calls {
				r, info := request("GET", call.path, "Cookie", call.cookie)
				info.RequestID = fmt.Sprint(i)
				if call.client != "" {
					info.ClientIP = info.ClientIP.Next()
				}
				before := asked.Load()
				w := status(h, r)
				if w.Code != call.want || (asked.Load() > before) != call.asks {
					t.Errorf("call %d: got %d, asked %v", i, w.Code, asked.Load() > before)
				}
				if w.Code == 200 && info.ID != "u:"+call.cookie {
					t.Errorf("call %d: id %q", i, info.ID)
				}
			}
		})
	}
}

func TestForwardAuthCacheIsBounded(t *testing.T) {
	a := newAnswers(time.Hour)
	now := time.Now()
	for i := range 2 * maxAnswers {
		a.put(answerKey{byte(i), byte(i >> 8), byte(i >> 16)}, &verdict{status: 200}, now)
	}
	if n := a.kept.Len(); n != maxAnswers {
		t.Errorf("%d answers are kept, want %d", n, maxAnswers)
	}
}

func TestForwardAuthConfiguration(t *testing.T) {
	for name, c := range map[string]config.ForwardAuthPlug{
		"no URL":            {},
		"another scheme":    {URL: "ftp://a/"},
		"own header":        {URL: "http://a/", Set: []string{"Stent-Session"}},
		"copied and set":    {URL: "http://a/", Set: []string{"cookie"}, Headers: []string{"Cookie"}},
		"copied and spelt":  {URL: "http://a/", Set: []string{"X_User"}, Headers: []string{"X-User"}},
		"copied connection": {URL: "http://a/", Headers: []string{"Connection"}},
		"id of no header":   {URL: "http://a/", ID: "{a b}"},
	} {
		if _, err := Compile(config.Plug{Name: "forward_auth", Config: &c}, Env{}); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}
