package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/cmd/chat/account"
	"github.com/stentproxy/stent/cmd/chat/room"
	"github.com/stentproxy/stent/cmd/chat/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is an API over an empty database, with all that it logs.
func app(t *testing.T) (*API, *observer.ObservedLogs) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "chat.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	tokens, err := account.NewTokens(strings.Repeat("x", 32), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	return &API{Store: db, Tokens: tokens, Passwords: account.NewPasswords(2), Room: new(room.Server), Log: zap.New(core)}, logs
}

func ask(t *testing.T, h http.Handler, method, path, token, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		req.Header.Set("Authorization", "bearer "+token) // schemes have no case
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, strings.TrimSpace(w.Body.String())
}

const newcomer = `{"user":{"name":"Ann","subname":"Lee","email":"ann@example.com","job":"dev"}}`

// TestPasswordsGoIntoMailAlone looks for the password everywhere else.
func TestPasswordsGoIntoMailAlone(t *testing.T) {
	a, logs := app(t)
	mailed := ""
	a.Send = func(_ context.Context, to, _, body string) error {
		if to != "ann@example.com" {
			t.Errorf("mail to %s", to)
		}
		mailed = body
		return nil
	}
	h := a.Handler()
	status, text := ask(t, h, "POST", "/api/users", "", newcomer)
	if status != http.StatusCreated {
		t.Fatalf("got %d %s", status, text)
	}
	_, rest, _ := strings.Cut(mailed, "your password is")
	password := strings.Fields(rest)[0]
	creds, _ := json.Marshal(map[string]any{"creds": map[string]string{"email": "ann@example.com", "password": password}})
	status, login := ask(t, h, "POST", "/api/login", "", string(creds))
	if status != http.StatusOK {
		t.Fatalf("login: got %d %s", status, login)
	}
	var all bytes.Buffer
	for _, entry := range logs.All() {
		all.WriteString(entry.Message)
		json.NewEncoder(&all).Encode(entry.ContextMap())
	}
	if strings.Contains(text+login+all.String(), password) {
		t.Error("the password is in an answer or in the log")
	}
	if status, _ := ask(t, h, "GET", "/sent_mails", "", ""); status != http.StatusNotFound {
		t.Errorf("the mailbox is there beside SMTP: %d", status)
	}
}

func TestNobodyIsLeftWhoseMailFailed(t *testing.T) {
	a, _ := app(t)
	var fail error = errors.New("refused")
	a.Send = func(context.Context, string, string, string) error { return fail }
	h := a.Handler()
	if status, text := ask(t, h, "POST", "/api/users", "", newcomer); status != http.StatusBadGateway || strings.Contains(text, "refused") {
		t.Errorf("got %d %s", status, text)
	}
	fail = nil
	if status, text := ask(t, h, "POST", "/api/users", "", newcomer); status != http.StatusCreated {
		t.Errorf("again: got %d %s", status, text)
	}
}

func TestLogoutHoldsWithoutTheProxy(t *testing.T) {
	a, logs := app(t)
	told := ""
	a.Revoke = func(_ context.Context, jti string, _ time.Time) error {
		told = jti
		return errors.New("no proxy")
	}
	h := a.Handler()
	ask(t, h, "POST", "/api/users", "", newcomer)
	text, token, err := a.Tokens.Issue("1")
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(t, h, "GET", "/api/users", text, ""); status != http.StatusOK {
		t.Fatalf("before: got %d", status)
	}
	if status, _ := ask(t, h, "POST", "/api/logout", text, ""); status != http.StatusOK || told != token.ID {
		t.Errorf("got %d, told %q", status, told)
	}
	if status, _ := ask(t, h, "GET", "/api/users", text, ""); status != http.StatusUnauthorized {
		t.Errorf("after: got %d", status)
	}
	if logs.FilterMessage("revoke a token at the proxy").Len() != 1 {
		t.Error("that the proxy was not told is not logged")
	}
	r := httptest.NewRequest("GET", room.Path+"?token="+text, nil)
	if _, err := a.Authenticate(r); err == nil {
		t.Error("a socket gets in by a revoked token")
	}
}

func FuzzNewUser(f *testing.F) {
	f.Add([]byte(newcomer))
	f.Add([]byte(`{"user":{"name":null,"email":"a@b\r\nBcc: c@d","job":"\u202e"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fields, err := decode(httptest.NewRequest("POST", "/", bytes.NewReader(body)), "user")
		if err != nil {
			return
		}
		u, err := newUser(fields)
		if err != nil {
			return
		}
		for _, text := range []string{u.Name, u.Subname, u.Email, u.Job} {
			if text == "" || strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("took %q", text)
			}
		}
	})
}
