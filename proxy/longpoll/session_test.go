package longpoll

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stentproxy/stent/proxy/frame"
)

// rig is a session with a test in the place of stent, on a pipe whose time is
// the test's own.
type rig struct {
	t     *testing.T
	table *Table
	conn  net.Conn // stent's end
	s     *Session
	token string
}

const answer101 = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSet-Cookie: a=1\r\n\r\n"

// newRig opens a session. Its time is that of the bubble that it is called in.
func newRig(t *testing.T, limit int64) *rig {
	t.Helper()
	table := NewTable()
	table.pair = func() (net.Conn, net.Conn, error) { a, b := net.Pipe(); return a, b, nil }
	c := table.Client(limit)
	defer c.Close()
	conn, _, err := http.NewResponseController(c).Hijack()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, table: table, conn: conn}
	r.write([]byte(answer101))
	token, header := c.Keep("KEY", "/*")
	if token == "" || header.Get("Set-Cookie") != "a=1" || header.Get("Upgrade") != "" {
		t.Fatalf("kept as %q with %v", token, header)
	}
	r.token, r.s = token, table.Find(token, "/*")
	if r.s == nil {
		t.Fatal("the session is not found")
	}
	t.Cleanup(func() {
		conn.Close()
		table.Close()
	})
	return r
}

func (r *rig) write(b []byte) {
	if _, err := r.conn.Write(b); err != nil {
		r.t.Errorf("write: %v", err)
	}
}

// say sends a frame as stent would.
func (r *rig) say(op frame.Opcode, fin bool, payload string) {
	r.write(frame.AppendFrame(nil, frame.Header{Fin: fin, Opcode: op}, []byte(payload)))
}

// hear reads one frame of the client's.
func (r *rig) hear() string {
	r.t.Helper()
	br := bufio.NewReader(io.MultiReader(r.conn))
	b, err := br.Peek(6)
	if err != nil {
		r.t.Fatalf("read: %v", err)
	}
	h, n, err := frame.ParseHeader(b)
	if err != nil || !h.Masked || !h.Fin || h.Key == [4]byte{} || n == 0 || h.Length > 125 {
		r.t.Fatalf("frame %+v: %v", h, err)
	}
	br.Discard(n)
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(br, payload); err != nil {
		r.t.Fatal(err)
	}
	frame.Mask(h.Key, 0, payload)
	return fmt.Sprintf("%v %s", h.Opcode, payload)
}

func (r *rig) poll() News {
	n, err := r.s.Poll(r.t.Context())
	if err != nil {
		r.t.Errorf("poll: %v", err)
	}
	return n
}

func (r *rig) want(got News, code int, messages ...string) {
	r.t.Helper()
	if got.Code != code || !slices.Equal(got.Messages, messages) {
		r.t.Errorf("got %+v, want code %d and %q", got, code, messages)
	}
}

func TestPollWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		ended := make(chan error)
		go func() { // it takes the pings
			_, err := io.Copy(io.Discard, r.conn)
			ended <- err
		}()
		for range 5 { // a client that polls is never away
			start := time.Now()
			r.want(r.poll(), 0)
			if got := time.Since(start); got != DefaultWindow {
				t.Errorf("nothing came after %s", got)
			}
		}
		time.Sleep(DefaultWindow*3/2 - 1)
		r.say(frame.Text, true, "a")
		r.want(r.poll(), 0, "a")
		time.Sleep(DefaultWindow * 3 / 2)
		synctest.Wait()
		if r.table.Find(r.token, "/*") != nil {
			t.Error("a session whose client stays away is kept")
		}
		if _, err := r.s.Poll(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("poll of a session that is gone: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("its connection: %v", err)
		}
	})
}

// A client that only listens is heard of.
func TestPollPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		start := time.Now()
		heard := make(chan string, 10)
		go func() {
			for range 2 {
				heard <- fmt.Sprint(r.hear(), time.Since(start))
			}
		}()
		for range 7 {
			r.want(r.poll(), 0)
		}
		for _, want := range []string{"ping 30s", "ping 1m0s"} {
			if got := <-heard; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		r.say(frame.Pong, true, "")
		r.say(frame.Text, true, "a")
		r.want(r.poll(), 0, "a")
	})
}

// One that can't be written is no harm.
func TestPingIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		for range 5 {
			r.want(r.poll(), 0)
		}
		r.say(frame.Text, true, "a")
		r.want(r.poll(), 0, "a")
	})
}

func TestMessagesComeWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		r.say(frame.Text, false, "on")
		r.say(frame.Ping, true, "between")
		if got := r.hear(); got != "pong between" {
			t.Errorf("got %s", got)
		}
		r.say(frame.Continuation, false, "")
		r.say(frame.Continuation, true, "e")
		r.say(frame.Binary, true, "\x00\x01\x02")
		r.say(frame.Text, true, "")
		long := strings.Repeat("x", 3*readSize)
		for _, b := range frame.AppendFrame(nil, frame.Header{Fin: true, Opcode: frame.Text}, []byte(long)) {
			r.write([]byte{b})
		}
		synctest.Wait()
		r.want(r.poll(), 0, "one", "AAEC", "", long)
	})
}

// A second poll takes the place of the first, and no message is lost between
// them, nor with a client that goes.
func TestPollsFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		first, second := make(chan News, 1), make(chan News, 1)
		go func() { first <- r.poll() }()
		synctest.Wait()
		go func() { second <- r.poll() }()
		synctest.Wait()
		r.want(<-first, 0)
		r.say(frame.Text, true, "a")
		r.want(<-second, 0, "a")

		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { _, err := r.s.Poll(ctx); left <- err }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		r.say(frame.Text, true, "b")
		r.want(r.poll(), 0, "b")
	})
}

func TestEndIsToldOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(r *rig)
		code int
	}{
		{"close", func(r *rig) {
			r.say(frame.Close, true, "\x03\xf0no")
			if got := r.hear(); got != "close \x03\xf0no" {
				r.t.Errorf("answered %q", got)
			}
			r.conn.Close()
		}, 1008},
		{"close without a code", func(r *rig) { r.say(frame.Close, true, ""); r.hear(); r.conn.Close() }, 1005},
		{"cut", func(r *rig) { r.conn.Close() }, 1006},
		{"nonsense", func(r *rig) { r.write([]byte{0xff, 0xff}) }, 1006},
		{"too big", func(r *rig) {
			r.write(frame.AppendHeader(nil, frame.Header{Fin: true, Opcode: frame.Text, Length: 101}))
			if got := r.hear(); got != "close \x03\xf1message too big for long poll" {
				r.t.Errorf("answered %q", got)
			}
			r.conn.Close()
		}, 1009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 100)
				r.say(frame.Text, true, "last")
				tt.end(r)
				synctest.Wait()
				r.want(r.poll(), 0, "last")
				r.want(r.poll(), tt.code)
				if r.table.Find(r.token, "/*") != nil || r.table.Load() != (Load{}) {
					t.Error("it is remembered")
				}
			})
		})
	}
}

// What waits is bounded: beyond that the connection is not read.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		const n = 3 * maxQueued
		sent := make(chan int, n)
		go func() {
			for i := range n {
				r.say(frame.Text, true, fmt.Sprint(i))
				sent <- i
			}
		}()
		synctest.Wait()
		if got := len(sent); got > maxQueued+readSize {
			t.Errorf("%d messages are taken", got)
		}
		for i := 0; i < n; {
			got := r.poll().Messages
			if len(got) == 0 || len(got) > maxQueued {
				t.Fatalf("%d messages at once", len(got))
			}
			for _, m := range got {
				if m != fmt.Sprint(i) {
					t.Fatalf("message %s is number %d", m, i)
				}
				i++
			}
		}
	})
}

// post sends texts as one request does.
func (r *rig) post(ctx context.Context, messages ...string) error {
	return r.s.Post(ctx, func() (iter.Seq[Message], error) {
		return func(yield func(Message) bool) {
			for _, m := range messages {
				if !yield(Message{frame.Text, []byte(m)}) {
					return
				}
			}
		}, nil
	})
}

func TestPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		done := make(chan error, 1)
		go func() { done <- r.post(t.Context(), "a", "b") }()
		for _, want := range []string{"text a", "text b"} {
			if got := r.hear(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		bad := errors.New("bad body")
		if err := r.s.Post(t.Context(), func() (iter.Seq[Message], error) { return nil, bad }); !errors.Is(err, bad) {
			t.Errorf("got %v", err)
		}
	})
}

// Nobody reads: the request ends with its window, so does one that waits for
// its turn behind it, and pings in between are answered when there is room.
func TestPostTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0)
		start := time.Now()
		done := make(chan error, 2)
		go func() { done <- r.post(t.Context(), "a") }()
		synctest.Wait()
		go func() { done <- r.post(t.Context(), "b") }()
		gone, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- r.post(gone, "c") }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		r.say(frame.Ping, true, "1")
		r.say(frame.Ping, true, "2")
		for range 2 {
			if err := <-done; !errors.Is(err, ErrTimeout) {
				t.Errorf("got %v", err)
			}
		}
		if got := time.Since(start); got < DefaultWindow || got > 2*DefaultWindow {
			t.Errorf("it took %s", got)
		}
		r.conn.Close()
		synctest.Wait()
		if err := r.post(t.Context(), "d"); !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
	})
}

// A session that is refused, or never kept, leaves nothing.
func TestClientNotKept(t *testing.T) {
	table := NewTable()
	defer table.Close()
	c := table.Client(0)
	c.Header().Set("Retry-After", "5")
	c.WriteHeader(http.StatusEarlyHints)
	c.WriteHeader(http.StatusServiceUnavailable)
	io.WriteString(c, "body")
	if token, _ := c.Keep("KEY", "/*"); token != "" || c.Status != http.StatusServiceUnavailable {
		t.Errorf("token %q, status %d", token, c.Status)
	}
	c.Close()

	for _, answer := range []string{"", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "nonsense\r\n\r\n"} {
		c := table.Client(0)
		conn, _, err := c.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, answer)
		conn.Close()
		if token, _ := c.Keep("KEY", "/*"); token != "" {
			t.Errorf("after %q: token %q", answer, token)
		}
		c.Close()
	}
	if table.Load() != (Load{}) {
		t.Errorf("it holds %+v", table.Load())
	}
}

// A table that is closed joins its readers and takes no more.
func TestTableCloses(t *testing.T) {
	table := NewTable()
	c := table.Client(0)
	conn, _, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, answer101)
	if token, _ := c.Keep("KEY", "/*"); token == "" {
		t.Fatal("it is not kept")
	}
	table.Close()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	conn.Close()
	if _, _, err := table.Client(0).Hijack(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answer   func(w http.ResponseWriter)
		http     int
		body     string
		refused  int
		location string
	}{
		{"opened", func(w http.ResponseWriter) { Opened(w, "t") }, 200, `{"status":410,"token":"t","messages":[]}`, 0, ""},
		{"messages", func(w http.ResponseWriter) { Tell(w, "t", News{Messages: []string{"a<"}}) }, 200, `{"status":200,"token":"t","messages":["a\u003c"]}`, 0, ""},
		{"nothing", func(w http.ResponseWriter) { Tell(w, "t", News{}) }, 200, `{"status":204,"token":"t","messages":[]}`, 0, ""},
		{"may not", func(w http.ResponseWriter) { Tell(w, "t", News{Code: 1008}) }, 200, `{"status":403,"token":"t","messages":[]}`, 0, ""},
		{"ended", func(w http.ResponseWriter) { Tell(w, "t", News{Code: 1012}) }, 200, `{"status":500,"token":"t","messages":[]}`, 0, ""},
		{"taken", Took, 200, `{"status":200}`, 0, ""},
		{"gone", Gone, 200, `{"status":410}`, 0, ""},
		{"timeout", Timeout, 200, `{"status":408}`, 0, ""},
		{"unauthorized", func(w http.ResponseWriter) { http.Error(w, "x", http.StatusUnauthorized) }, 200, `{"status":403,"title":"Unauthorized"}`, 401, ""},
		{"busy", func(w http.ResponseWriter) { http.Error(w, "x", http.StatusTooManyRequests) }, 429, `{"status":500,"title":"Too Many Requests"}`, 429, ""},
		{"redirect", func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(307) }, 307, "", 0, "/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			a := &Answer{ResponseWriter: rec}
			tt.answer(a)
			if got := bytes.TrimSpace(rec.Body.Bytes()); rec.Code != tt.http || string(got) != tt.body || a.Refused != tt.refused {
				t.Errorf("got %d %s (refused %d), want %d %s (%d)", rec.Code, got, a.Refused, tt.http, tt.body, tt.refused)
			}
			if got := rec.Header().Get("Access-Control-Allow-Origin"); got != "*" {
				t.Errorf("Access-Control-Allow-Origin %q", got)
			}
			if got := rec.Header().Get("Location"); got != tt.location {
				t.Errorf("Location %q", got)
			}
		})
	}
}
