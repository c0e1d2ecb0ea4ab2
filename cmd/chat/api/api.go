// Package api is the chat's HTTP side: users, tokens, conversations and their
// history, the page, and the development mailbox.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/cmd/chat/account"
	"github.com/stentproxy/stent/cmd/chat/room"
	"github.com/stentproxy/stent/cmd/chat/store"
)

const (
	// maxBody bounds the body of a request, in bytes.
	maxBody = 16 << 10
	// maxPage bounds what one request lists, defaultPage is what it lists
	// where it does not say.
	maxPage, defaultPage = 200, 50
)

// API answers the chat's requests.
type API struct {
	Store     *store.Store
	Tokens    *account.Tokens
	Passwords *account.Passwords
	// Send sends a mail; nil puts it into the mailbox at /sent_mails.
	Send func(ctx context.Context, to, subject, body string) error
	// Room is told of logouts and of messages that come by HTTP.
	Room *room.Server
	// Revoke tells the proxy of a logout; nil tells nobody.
	Revoke func(ctx context.Context, jti string, until time.Time) error
	Log    *zap.Logger
}

// Handler returns what serves everything but the socket.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /api/users", a.answer(a.signUp))
	mux.Handle("POST /api/login", a.answer(a.login))
	mux.Handle("POST /api/logout", a.member(a.logout))
	mux.Handle("GET /api/verify", a.member(a.verify))
	mux.Handle("GET /api/users", a.member(a.users))
	mux.Handle("GET /api/conversations", a.member(a.conversations))
	mux.Handle("POST /api/conversations", a.member(a.converse))
	mux.Handle("GET /api/conversations/{id}/messages", a.member(a.history))
	mux.Handle("POST /api/conversations/{id}/messages", a.member(a.say))
	mux.Handle("GET /api/lobby/messages", a.member(a.lobby))
	mux.Handle("/api/", a.answer(func(*http.Request) (result, error) {
		return result{}, problem{http.StatusNotFound, "there is no such resource"}
	}))
	if a.Send == nil {
		mux.HandleFunc("GET /sent_mails", a.mailbox)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Store.Ping(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// result is a good answer; a zero status is 200.
type result struct {
	status int
	body   any
	header map[string]string
}

// problem is a bad one, with what the client is told.
type problem struct {
	status  int
	message string
}

func (p problem) Error() string { return p.message }

// invalid names what is wrong with each field.
type invalid map[string][]string

func (invalid) Error() string { return "fields are not valid" }

// answer serves what f returns, in JSON.
func (a *API) answer(f func(*http.Request) (result, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		got, err := f(r)
		var p problem
		var fields invalid
		switch {
		case err == nil:
		case errors.As(err, &fields):
			got = result{status: http.StatusUnprocessableEntity, body: map[string]any{"errors": fields}}
		default:
			if !errors.As(err, &p) {
				if r.Context().Err() == nil {
					a.Log.Error("answer a request", zap.String("path", r.URL.Path), zap.Error(err))
				}
				p = problem{http.StatusInternalServerError, "internal error"}
			}
			got = result{status: p.status, body: map[string]string{"message": p.message}}
			if p.status == http.StatusUnauthorized {
				got.header = map[string]string{"WWW-Authenticate": "Bearer"}
			}
		}
		if got.status == 0 {
			got.status = http.StatusOK
		}
		body, err := json.Marshal(got.body)
		if err != nil {
			a.Log.Error("encode an answer", zap.String("path", r.URL.Path), zap.Error(err))
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		for name, value := range got.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(got.status)
		w.Write(append(body, '\n'))
	})
}

// visitor is who asks, by which token.
type visitor struct {
	id    int64
	token account.Token
}

// member is answer for those who show a token.
func (a *API) member(f func(*http.Request, visitor) (result, error)) http.Handler {
	return a.answer(func(r *http.Request) (result, error) {
		v, err := a.visitor(r.Context(), bearer(r))
		if err != nil {
			return result{}, err
		}
		return f(r, v)
	})
}

// bearer is the token of a request's Authorization field, or "".
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// unauthorized is what all get whose token is none; why stays here.
var unauthorized = problem{http.StatusUnauthorized, "log in first: the token is missing, wrong, expired or revoked"}

func (a *API) visitor(ctx context.Context, text string) (visitor, error) {
	token, err := a.Tokens.Read(text)
	if err != nil {
		return visitor{}, unauthorized
	}
	id, err := strconv.ParseInt(token.Subject, 10, 64)
	if err != nil {
		return visitor{}, unauthorized
	}
	revoked, err := a.Store.Revoked(ctx, token.ID)
	if err != nil {
		return visitor{}, err
	}
	if revoked {
		return visitor{}, unauthorized
	}
	return visitor{id, token}, nil
}

// Authenticate says who opens a socket, by the token in its query.
func (a *API) Authenticate(r *http.Request) (room.User, error) {
	v, err := a.visitor(r.Context(), r.URL.Query().Get("token"))
	if err != nil {
		return room.User{}, err
	}
	u, err := a.Store.User(r.Context(), v.id)
	if err != nil {
		return room.User{}, err
	}
	return room.User{ID: v.token.Subject, Name: u.Name + " " + u.Subname, Token: v.token.ID, Expires: v.token.Expires}, nil
}

// verify is what the proxy asks of each request of a member.
func (a *API) verify(_ *http.Request, v visitor) (result, error) {
	return result{body: map[string]any{"id": v.id}, header: map[string]string{"X-User-Id": v.token.Subject}}, nil
}

// decode reads {key: {…}} and returns the inner fields, undecoded.
func decode(r *http.Request, key string) (map[string]json.RawMessage, error) {
	want := problem{http.StatusBadRequest, `want a JSON body {"` + key + `": {…}}`}
	data, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, problem{http.StatusRequestEntityTooLarge, "the body is too large"}
	}
	var outer map[string]json.RawMessage
	if err != nil || json.Unmarshal(data, &outer) != nil {
		return nil, want
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(outer[key], &fields) != nil || fields == nil {
		return nil, want
	}
	return fields, nil
}

// page reads a whole number of the query; absent is fallback.
func page(r *http.Request, name string, fallback, highest int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, problem{http.StatusBadRequest, name + " is not a number above 0"}
	}
	return min(n, highest), nil
}
