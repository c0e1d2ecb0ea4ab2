package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/stentproxy/stent/cmd/chat/room"
)

// TestMain lets the test's program be the backend, as chat's own is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "backend" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// running is a chat behind stent.
type running struct {
	t      *testing.T
	base   string
	client *http.Client
}

// start runs the whole application until the test ends.
func start(t *testing.T) *running {
	t.Helper()
	c := runCmd{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Data: t.TempDir(), Pause: 10 * time.Millisecond, Log: "error"}
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- c.serve(ctx, func(base string) { ready <- base }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("serve: %v", err)
		}
	})
	select {
	case base := <-ready:
		return &running{t, base, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}}
	case err := <-done:
		done <- err
		t.Fatalf("serve: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("it never got ready")
	}
	return nil
}

// call makes a request and returns its answer; body "" is none.
func (r *running) call(method, path, token, body string, header ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text)), resp.Header
}

// want is call, with a status that has to be.
func (r *running) want(status int, method, path, token, body string) string {
	r.t.Helper()
	got, text, _ := r.call(method, path, token, body)
	if got != status {
		r.t.Fatalf("%s %s: got %d %s, want %d", method, path, got, text, status)
	}
	return text
}

// signUp makes a user, reads the password in the mailbox, and logs in.
func (r *running) signUp(name string) (id int64, token string) {
	r.t.Helper()
	email := strings.ToLower(name) + "@example.com"
	r.want(201, "POST", "/api/users", "", fmt.Sprintf(`{"user":{"name":%q,"subname":"Lee","email":%q,"job":"dev"}}`, name, email))
	return r.login(email, r.password(email))
}

func (r *running) login(email, password string) (id int64, token string) {
	r.t.Helper()
	status, text, header := r.call("POST", "/api/login", "", fmt.Sprintf(`{"creds":{"email":%q,"password":%q}}`, email, password))
	var answer struct {
		Data struct {
			User   struct{ ID int64 }
			Token  string
			Expire int64
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 {
		r.t.Fatalf("login: got %d %s", status, text)
	}
	d := answer.Data
	if header.Get("Authorization") != "Bearer "+d.Token || d.Expire <= time.Now().Unix() || strings.Contains(text, password) {
		r.t.Errorf("login: got %v %s", header, text)
	}
	return d.User.ID, d.Token
}

var mailed = regexp.MustCompile(`your password is\s+(\S+)\s+It goes with (\S+)\.`)

// password is what was mailed to an address.
func (r *running) password(email string) string {
	r.t.Helper()
	for _, m := range mailed.FindAllStringSubmatch(html.UnescapeString(r.want(200, "GET", "/sent_mails", "", "")), -1) {
		if m[2] == email {
			return m[1]
		}
	}
	r.t.Fatalf("no mail to %s", email)
	return ""
}

// socket is a V2 client whose connection must stay.
type socket struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan room.Frame
	ended  chan error
	ref    int
	joins  map[string]string

	mu       sync.Mutex
	backends map[string]bool // that have sent a history
}

func (r *running) connect(token string) *socket {
	r.t.Helper()
	conn, _, err := websocket.Dial(r.t.Context(), "ws"+strings.TrimPrefix(r.base, "http")+room.Path+"?vsn=2.0.0&token="+token, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	s := &socket{t: r.t, conn: conn, frames: make(chan room.Frame, 10_000), ended: make(chan error, 1), joins: make(map[string]string), backends: make(map[string]bool)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, data, err := conn.Read(context.Background())
			if err != nil {
				s.ended <- err
				return
			}
			f, err := room.ParseFrame(data)
			if err != nil {
				s.ended <- err
				return
			}
			var history struct{ Server string }
			if f.Event == "history" && json.Unmarshal(f.Payload, &history) == nil {
				s.mu.Lock()
				s.backends[history.Server] = true
				s.mu.Unlock()
			}
			s.frames <- f
		}
	}()
	r.t.Cleanup(func() {
		conn.CloseNow()
		<-done
	})
	return s
}

func (s *socket) push(topic, event, payload string) (ref string) {
	s.t.Helper()
	s.ref++
	ref = strconv.Itoa(s.ref)
	if event == "phx_join" {
		s.joins[topic] = ref
	}
	data, err := json.Marshal([]any{s.joins[topic], ref, topic, event, json.RawMessage(payload)})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, data); err != nil {
		s.t.Fatalf("push %s: %v", event, err)
	}
	return ref
}

// await waits for a frame that is wanted, or returns false.
func (s *socket) await(patience time.Duration, wanted func(room.Frame) bool) (room.Frame, bool) {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case f := <-s.frames:
			if wanted(f) {
				return f, true
			}
		case err := <-s.ended:
			s.t.Fatalf("the connection ended: %v", err)
		case <-timeout:
			return room.Frame{}, false
		}
	}
}

func (s *socket) reply(ref string, patience time.Duration) (string, bool) {
	s.t.Helper()
	f, ok := s.await(patience, func(f room.Frame) bool { return f.Event == "phx_reply" && f.Ref != nil && *f.Ref == ref })
	return string(f.Payload), ok
}

func (s *socket) join(topic string) {
	s.t.Helper()
	if got, ok := s.reply(s.push(topic, "phx_join", "{}"), 10*time.Second); !ok || !strings.HasPrefix(got, `{"status":"ok"`) {
		s.t.Fatalf("join %s: got %q", topic, got)
	}
}

// TestScript is a session through the whole API, through stent.
func TestScript(t *testing.T) {
	r := start(t)
	ann, annToken := r.signUp("Ann")
	bob, bobToken := r.signUp("Bob")
	_, cydToken := r.signUp("Cyd")

	text := r.want(200, "GET", "/api/users", annToken, "")
	for _, never := range []string{"password", "argon2", "hash"} {
		if strings.Contains(text, never) {
			t.Errorf("users: %s holds %q", text, never)
		}
	}
	made := r.want(201, "POST", "/api/conversations", annToken, fmt.Sprintf(`{"conversation":{"user_id":%d}}`, bob))
	again := r.want(200, "POST", "/api/conversations", bobToken, fmt.Sprintf(`{"conversation":{"user_id":%d}}`, ann))
	if made != again {
		t.Errorf("the pair the other way round: got %s, want %s", again, made)
	}
	var conversation struct {
		Data struct {
			ID    int64
			Topic string
		}
	}
	if err := json.Unmarshal([]byte(made), &conversation); err != nil {
		t.Fatal(err)
	}

	a, b := r.connect(annToken), r.connect(bobToken)
	a.join("room:lobby")
	a.join("room:chat")
	b.join("room:lobby")
	b.join("room:chat")
	for i := range 3 {
		ref := a.push("room:chat", "send_msg", fmt.Sprintf(`{"id":"m%d","to":%d,"body":"message %d"}`, i, bob, i))
		if got, ok := a.reply(ref, 10*time.Second); !ok || !strings.Contains(got, `"status":"ok"`) {
			t.Fatalf("send: got %q", got)
		}
		if f, ok := b.await(10*time.Second, func(f room.Frame) bool { return f.Event == "receive_msg" }); !ok || !strings.Contains(string(f.Payload), fmt.Sprintf("message %d", i)) {
			t.Fatalf("receive: got %s", f.Payload)
		}
	}
	path := fmt.Sprintf("/api/conversations/%d/messages", conversation.Data.ID)
	r.want(201, "POST", path, bobToken, `{"message":{"id":"h1","body":"by HTTP"}}`)
	if _, ok := a.await(10*time.Second, func(f room.Frame) bool {
		return f.Event == "receive_msg" && strings.Contains(string(f.Payload), "by HTTP")
	}); !ok {
		t.Error("what came by HTTP was not told")
	}
	var last struct {
		Data []room.Message
		Next *int64
	}
	decode := func(text string) []string {
		t.Helper()
		last.Data, last.Next = nil, nil
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			t.Fatal(err)
		}
		var bodies []string
		for _, m := range last.Data {
			bodies = append(bodies, m.Body)
		}
		return bodies
	}
	if got := fmt.Sprint(decode(r.want(200, "GET", path+"?limit=3", bobToken, ""))); got != "[message 1 message 2 by HTTP]" || last.Next == nil {
		t.Fatalf("last page: got %s, next %v", got, last.Next)
	}
	if got := fmt.Sprint(decode(r.want(200, "GET", fmt.Sprintf("%s?limit=3&before=%d", path, *last.Next), bobToken, ""))); got != "[message 0]" || last.Next != nil {
		t.Errorf("first page: got %s, next %v", got, last.Next)
	}
	// A third one sees none of it.
	r.want(404, "GET", path, cydToken, "")
	r.want(404, "POST", path, cydToken, `{"message":{"body":"x"}}`)
	c := r.connect(cydToken)
	if got, _ := c.reply(c.push(conversation.Data.Topic, "phx_join", "{}"), 10*time.Second); got != `{"status":"error","response":{"reason":"unauthorized"}}` {
		t.Errorf("a stranger's join: got %s", got)
	}

	// Logout ends the token, the open socket, and what comes.
	r.want(200, "POST", "/api/logout", annToken, "")
	select {
	case err := <-a.ended:
		if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation {
			t.Errorf("the socket after logout: got %v, want close 1008", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the socket outlived the logout")
	}
	for _, path := range []string{"/api/users", path} {
		var answer struct{ Message string }
		if got := r.want(401, "GET", path, annToken, ""); json.Unmarshal([]byte(got), &answer) != nil || answer.Message == "" {
			t.Errorf("%s after logout: got %s", path, got)
		}
	}
	_, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(r.base, "http")+room.Path+"?vsn=2.0.0&token="+annToken, nil)
	if err == nil || resp == nil || resp.StatusCode != 401 || !strings.Contains(resp.Header.Get("Content-Type"), "problem+json") {
		t.Errorf("a new socket after logout: got %v; stent itself should refuse it", err)
	}
	b.push("room:lobby", "new_msg", `{"id":"b1","body":"still here"}`)
	if _, ok := b.await(10*time.Second, func(f room.Frame) bool { return f.Event == "new_msg" }); !ok {
		t.Error("somebody else's socket has gone")
	}
}

func TestInput(t *testing.T) {
	r := start(t)
	_, token := r.signUp("Ann")
	long := strings.Repeat("x", 101)
	for _, tt := range []struct {
		name, method, path, token, body string
		status                          int
		want                            string
	}{
		{"no JSON", "POST", "/api/users", "", "x", 400, `{"message":"want a JSON body {\"user\": {…}}"}`},
		{"no user", "POST", "/api/users", "", `{}`, 400, `{"message":"want a JSON body {\"user\": {…}}"}`},
		{"a user of null", "POST", "/api/users", "", `{"user":null}`, 400, `{"message":"want a JSON body {\"user\": {…}}"}`},
		{"empty user", "POST", "/api/users", "", `{"user":{}}`, 422, `{"errors":{"email":["can't be blank"],"job":["can't be blank"],"name":["can't be blank"],"subname":["can't be blank"]}}`},
		{"wrong fields", "POST", "/api/users", "", `{"user":{"name":1,"subname":"` + long + `","email":"x@y\nBcc: z@z.com","job":"\u0000"}}`, 422,
			`{"errors":{"email":["has invalid characters"],"job":["has invalid characters"],"name":["is invalid"],"subname":["should be at most 100 character(s)"]}}`},
		{"taken", "POST", "/api/users", "", `{"user":{"name":"A","subname":"B","email":"ANN@example.com","job":"x"}}`, 422, `{"errors":{"email":["has already been taken"]}}`},
		{"too large", "POST", "/api/users", "", `{"user":{"name":"` + strings.Repeat("x", 20_000) + `"}}`, 413, `{"message":"the body is too large"}`},
		{"wrong password", "POST", "/api/login", "", `{"creds":{"email":"ann@example.com","password":"x"}}`, 401, `{"message":"email or password is wrong"}`},
		{"nobody", "POST", "/api/login", "", `{"creds":{"email":"eve@example.com","password":"x"}}`, 401, `{"message":"email or password is wrong"}`},
		{"creds of other types", "POST", "/api/login", "", `{"creds":{"email":{},"password":[]}}`, 400, `{"message":"want email and password"}`},
		{"conversation with oneself", "POST", "/api/conversations", token, `{"conversation":{"user_id":1}}`, 422, `{"errors":{"user_id":["can't be yourself"]}}`},
		{"conversation with nobody", "POST", "/api/conversations", token, `{"conversation":{"user_id":"99"}}`, 422, `{"errors":{"user_id":["does not exist"]}}`},
		{"conversation with no number", "POST", "/api/conversations", token, `{"conversation":{"user_id":1.5}}`, 422, `{"errors":{"user_id":["is invalid"]}}`},
		{"conversation that is none", "GET", "/api/conversations/x/messages", token, "", 404, `{"message":"there is no such conversation"}`},
		{"page below zero", "GET", "/api/lobby/messages?before=-1", token, "", 400, `{"message":"before is not a number above 0"}`},
		{"two ways", "GET", "/api/lobby/messages?before=1&after=1", token, "", 400, `{"message":"want before or after, not both"}`},
		{"another resource", "GET", "/api/x", token, "", 404, `{"message":"there is no such resource"}`},
		{"a made-up token", "GET", "/api/users", "x.y.z", "", 401, `{"message":"log in first: the token is missing, wrong, expired or revoked"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, text, _ := r.call(tt.method, tt.path, tt.token, tt.body)
			if status != tt.status || text != tt.want {
				t.Errorf("got %d %s, want %d %s", status, text, tt.status, tt.want)
			}
		})
	}
}

func TestPipelines(t *testing.T) {
	r := start(t)
	status, text, header := r.call("GET", "/", "", "", "Accept", "text/html")
	if status != 200 || !strings.Contains(text, "<title>") || !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'") ||
		header.Get("X-Frame-Options") != "DENY" || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("page: got %d %v", status, header)
	}
	var cookies []string
	csrf := ""
	for _, c := range header["Set-Cookie"] {
		pair, _, _ := strings.Cut(c, ";")
		cookies = append(cookies, pair)
		if token, ok := strings.CutPrefix(pair, "_csrf_token="); ok {
			csrf = token
		}
	}
	if status, _, _ := r.call("GET", "/", "", "", "Accept", "application/json"); status != 406 {
		t.Errorf("page as JSON: got %d, want 406", status)
	}
	if status, _, _ := r.call("POST", "/demo/backend/kill", "", "", "Cookie", strings.Join(cookies, "; ")); status != 403 {
		t.Errorf("kill without a CSRF token: got %d, want 403", status)
	}
	if status, _, _ := r.call("POST", "/demo/backend/kill", "", "", "Cookie", strings.Join(cookies, "; "), "X-CSRF-Token", csrf); status != 202 {
		t.Errorf("kill: got %d, want 202", status)
	}
	if status, _, _ := r.call("GET", "/api/users", "", "", "Accept", "text/html"); status != 406 {
		t.Errorf("API as HTML: got %d, want 406", status)
	}
	if _, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(r.base, "http")+room.Path, nil); err == nil || resp == nil || resp.StatusCode != 401 {
		t.Errorf("socket without a token: got %v, want 401", err)
	}
}

func TestNamesAreEscaped(t *testing.T) {
	r := start(t)
	r.want(201, "POST", "/api/users", "", `{"user":{"name":"<script>alert(1)</script>","subname":"\"&'","email":"eve@example.com","job":"x"}}`)
	text := r.want(200, "GET", "/sent_mails", "", "")
	if strings.Contains(text, "<script>alert") || !strings.Contains(text, "&lt;script&gt;alert(1)") {
		t.Errorf("mailbox: got %s", text)
	}
	script, err := os.ReadFile("page/assets/chat.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
		if bytes.Contains(script, []byte(way)) {
			t.Errorf("the page's script uses %s, by which text becomes markup", way)
		}
	}
}

// TestBackendIsKilled has two people talk while the backend's process is
// killed again and again: both keep their connection, and what was
// acknowledged is in the database once.
func TestBackendIsKilled(t *testing.T) {
	kills := 8
	if testing.Short() {
		kills = 2
	}
	r := start(t)
	_, annToken := r.signUp("Ann")
	_, bobToken := r.signUp("Bob")
	a, b := r.connect(annToken), r.connect(bobToken)
	for _, s := range []*socket{a, b} {
		s.join("room:lobby")
		s.join("room:chat")
	}
	_, _, header := r.call("GET", "/", "", "")
	var cookies []string
	csrf := ""
	for _, c := range header["Set-Cookie"] {
		pair, _, _ := strings.Cut(c, ";")
		cookies = append(cookies, pair)
		csrf = strings.TrimPrefix(pair, "_csrf_token=")
	}
	var acknowledged []string
	for kill := range kills {
		for i := range 4 {
			id := fmt.Sprintf("k%d-%d", kill, i)
			if i == 2 { // the answers to what follows may be lost with the backend
				if status, text, _ := r.call("POST", "/demo/backend/kill", "", "", "Cookie", strings.Join(cookies, "; "), "X-CSRF-Token", csrf); status != 202 {
					t.Fatalf("kill: got %d %s", status, text)
				}
			}
			for tries := 0; ; tries++ {
				if tries == 60 {
					t.Fatalf("%s was never acknowledged", id)
				}
				got, ok := a.reply(a.push("room:lobby", "new_msg", fmt.Sprintf(`{"id":%q,"body":%q}`, id, id)), time.Second)
				if ok && strings.Contains(got, `"status":"ok"`) {
					break
				}
			}
			acknowledged = append(acknowledged, id)
		}
	}
	// Bob hears of the last one, live or by the history of his repeated join.
	last := acknowledged[len(acknowledged)-1]
	if _, ok := b.await(20*time.Second, func(f room.Frame) bool {
		return (f.Event == "new_msg" || f.Event == "history") && strings.Contains(string(f.Payload), strconv.Quote(last))
	}); !ok {
		t.Errorf("the other never heard %s", last)
	}
	for name, s := range map[string]*socket{"a": a, "b": b} {
		if got, ok := s.reply(s.push("phoenix", "heartbeat", "{}"), 20*time.Second); !ok || got != `{"status":"ok","response":{}}` {
			t.Errorf("%s: heartbeat: got %q", name, got)
		}
	}
	a.mu.Lock()
	if got := len(a.backends); got < kills/2+1 {
		t.Errorf("the connection has seen %d backends; were any killed?", got)
	}
	a.mu.Unlock()
	var page struct{ Data []room.Message }
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/api/lobby/messages?limit=200", bobToken, "")), &page); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, m := range page.Data {
		kept = append(kept, m.ID)
	}
	if got, want := fmt.Sprint(kept), fmt.Sprint(acknowledged); got != want {
		t.Errorf("kept %s, acknowledged %s", got, want)
	}
}
