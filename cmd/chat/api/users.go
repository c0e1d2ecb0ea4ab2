package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/cmd/chat/account"
	"github.com/stentproxy/stent/cmd/chat/mail"
	"github.com/stentproxy/stent/cmd/chat/room"
	"github.com/stentproxy/stent/cmd/chat/store"
)

// maxField bounds each field of a user, in characters.
const maxField = 100

// newUser checks the fields of one who signs up. As in an Ecto changeset,
// every field has all that is wrong with it.
func newUser(fields map[string]json.RawMessage) (store.User, error) {
	var u store.User
	wrong := invalid{}
	for name, into := range map[string]*string{"name": &u.Name, "subname": &u.Subname, "email": &u.Email, "job": &u.Job} {
		var text *string
		if raw := fields[name]; raw != nil && json.Unmarshal(raw, &text) != nil {
			wrong[name] = []string{"is invalid"}
			continue
		}
		if text == nil || strings.TrimSpace(*text) == "" {
			wrong[name] = []string{"can't be blank"}
			continue
		}
		*into = strings.TrimSpace(*text)
		if utf8.RuneCountInString(*into) > maxField {
			wrong[name] = append(wrong[name], fmt.Sprintf("should be at most %d character(s)", maxField))
		}
		if strings.ContainsFunc(*into, func(r rune) bool { return !unicode.IsPrint(r) }) {
			wrong[name] = append(wrong[name], "has invalid characters")
		}
	}
	if wrong["email"] == nil {
		if err := mail.CheckAddress(u.Email); err != nil {
			wrong["email"] = []string{err.Error()}
		}
	}
	if len(wrong) > 0 {
		return store.User{}, wrong
	}
	return u, nil
}

// signUp makes a user and mails a password to them.
func (a *API) signUp(r *http.Request) (result, error) {
	fields, err := decode(r, "user")
	if err != nil {
		return result{}, err
	}
	u, err := newUser(fields)
	if err != nil {
		return result{}, err
	}
	ctx := r.Context()
	password := account.Generate()
	hash, err := a.Passwords.Hash(ctx, password)
	if err != nil {
		return result{}, err
	}
	u.ID, err = a.Store.AddUser(ctx, u, hash)
	if errors.Is(err, store.ErrTaken) {
		return result{}, invalid{"email": {"has already been taken"}}
	}
	if err != nil {
		return result{}, err
	}
	const subject = "Your password for the chat"
	body := "Hello " + u.Name + ",\n\nyour password is\n\n    " + password + "\n\nIt goes with " + u.Email + ".\n"
	send := a.Send
	if send == nil {
		send = func(ctx context.Context, to, subject, body string) error {
			return a.Store.AddMail(ctx, store.Mail{To: to, Subject: subject, Body: body})
		}
	}
	if err := send(ctx, u.Email, subject, body); err != nil {
		a.Log.Error("mail a password", zap.Int64("user", u.ID), zap.Error(err))
		// Nobody could log in as them, nor take the address again.
		if err := a.Store.RemoveUser(context.WithoutCancel(ctx), u.ID); err != nil {
			return result{}, err
		}
		return result{}, problem{http.StatusBadGateway, "the password could not be mailed; try again later"}
	}
	return result{
		status: http.StatusCreated, body: map[string]any{"data": u},
		header: map[string]string{"Location": "/api/users/" + strconv.FormatInt(u.ID, 10)},
	}, nil
}

// users lists them all, page by page.
func (a *API) users(r *http.Request, _ visitor) (result, error) {
	after, err := page(r, "after", 0, math.MaxInt64)
	if err != nil {
		return result{}, err
	}
	limit, err := page(r, "limit", maxPage, maxPage)
	if err != nil {
		return result{}, err
	}
	users, err := a.Store.Users(r.Context(), after, int(limit))
	if err != nil {
		return result{}, err
	}
	var next any
	if len(users) == int(limit) {
		next = users[len(users)-1].ID
	}
	return result{body: map[string]any{"data": users, "next": next}}, nil
}

// login gives a token for a password.
func (a *API) login(r *http.Request) (result, error) {
	fields, err := decode(r, "creds")
	if err != nil {
		return result{}, err
	}
	var email, password string
	if json.Unmarshal(fields["email"], &email) != nil || json.Unmarshal(fields["password"], &password) != nil {
		return result{}, problem{http.StatusBadRequest, "want email and password"}
	}
	ctx := r.Context()
	u, hash, err := a.Store.Credentials(ctx, strings.TrimSpace(email))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return result{}, err
	}
	ok, err := a.Passwords.Matches(ctx, hash, password)
	if err != nil {
		return result{}, err
	}
	if !ok {
		return result{}, problem{http.StatusUnauthorized, "email or password is wrong"}
	}
	text, token, err := a.Tokens.Issue(strconv.FormatInt(u.ID, 10))
	if err != nil {
		return result{}, err
	}
	return result{
		body:   map[string]any{"data": map[string]any{"user": u, "token": text, "expire": token.Expires.Unix()}},
		header: map[string]string{"Authorization": "Bearer " + text},
	}, nil
}

// edgeTime bounds the talk with the proxy at a logout.
const edgeTime = 3 * time.Second

// logout ends a token, here, at the proxy, and where it has sockets open.
func (a *API) logout(r *http.Request, v visitor) (result, error) {
	// Whoever has begun to log out is out, even if they don't wait for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), edgeTime)
	defer cancel()
	if err := a.Store.RevokeToken(ctx, v.token.ID, v.token.Expires); err != nil {
		return result{}, err
	}
	if a.Revoke != nil {
		if err := a.Revoke(ctx, v.token.ID, v.token.Expires); err != nil {
			// The backend refuses the token itself, so nothing is open.
			a.Log.Warn("revoke a token at the proxy", zap.Error(err))
		}
	}
	a.Room.Disconnect(func(u room.User) bool { return u.Token == v.token.ID })
	return result{body: map[string]string{"message": "logged out"}}, nil
}
