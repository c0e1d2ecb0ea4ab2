package api

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/stentproxy/stent/cmd/chat/room"
	"github.com/stentproxy/stent/cmd/chat/store"
)

// converse returns the conversation with another user: 201 where it is new,
// 200 where the pair had it.
func (a *API) converse(r *http.Request, v visitor) (result, error) {
	fields, err := decode(r, "conversation")
	if err != nil {
		return result{}, err
	}
	if fields["user_id"] == nil {
		return result{}, invalid{"user_id": {"can't be blank"}}
	}
	other, err := number(fields["user_id"])
	if err != nil {
		return result{}, invalid{"user_id": {"is invalid"}}
	}
	c, made, err := a.Store.Converse(r.Context(), v.id, other)
	switch {
	case errors.Is(err, store.ErrSelf):
		return result{}, invalid{"user_id": {"can't be yourself"}}
	case errors.Is(err, store.ErrNotFound):
		return result{}, invalid{"user_id": {"does not exist"}}
	case err != nil:
		return result{}, err
	}
	status := http.StatusOK
	if made {
		status = http.StatusCreated
	}
	return result{status: status, body: map[string]any{"data": c}}, nil
}

// number reads a whole number, which may be text.
func number(raw json.RawMessage) (int64, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strconv.ParseInt(text, 10, 64)
	}
	var n int64
	err := json.Unmarshal(raw, &n)
	return n, err
}

// conversations lists those of the visitor.
func (a *API) conversations(r *http.Request, v visitor) (result, error) {
	all, err := a.Store.Conversations(r.Context(), v.id, maxPage)
	return result{body: map[string]any{"data": all}}, err
}

// conversation is the one that the path names, if the visitor is in it.
// Others are not told whether it exists.
func (a *API) conversation(r *http.Request, v visitor) (store.Conversation, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return store.Conversation{}, problem{http.StatusNotFound, "there is no such conversation"}
	}
	c, err := a.Store.Conversation(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && !slices.Contains(c.UserIDs[:], v.id) {
		return store.Conversation{}, problem{http.StatusNotFound, "there is no such conversation"}
	}
	return c, err
}

// history lists messages of a conversation.
func (a *API) history(r *http.Request, v visitor) (result, error) {
	c, err := a.conversation(r, v)
	if err != nil {
		return result{}, err
	}
	return a.messages(r, c.Topic)
}

// lobby lists messages of the lobby.
func (a *API) lobby(r *http.Request, _ visitor) (result, error) { return a.messages(r, room.Lobby) }

// messages lists a page of a room, oldest first: the last one, the one
// before a message or the one after it. Next is what to ask for to go on.
func (a *API) messages(r *http.Request, topic string) (result, error) {
	limit, err := page(r, "limit", defaultPage, maxPage)
	if err != nil {
		return result{}, err
	}
	before, err := page(r, "before", 0, math.MaxInt64)
	if err != nil {
		return result{}, err
	}
	after, err := page(r, "after", 0, math.MaxInt64)
	if err != nil {
		return result{}, err
	}
	if before > 0 && after > 0 {
		return result{}, problem{http.StatusBadRequest, "want before or after, not both"}
	}
	// One more than is asked for says whether there is a next page.
	var all []room.Message
	if after > 0 {
		all, err = a.Store.After(r.Context(), topic, after, int(limit)+1)
	} else {
		all, err = a.Store.Before(r.Context(), topic, before, int(limit)+1)
	}
	if err != nil {
		return result{}, err
	}
	var next any
	if len(all) > int(limit) {
		if after > 0 {
			all = all[:limit]
			next = all[len(all)-1].Seq
		} else {
			all = all[1:]
			next = all[0].Seq
		}
	}
	return result{body: map[string]any{"data": all, "next": next}}, nil
}

// say says something in a conversation, as a push on its channel would.
func (a *API) say(r *http.Request, v visitor) (result, error) {
	c, err := a.conversation(r, v)
	if err != nil {
		return result{}, err
	}
	fields, err := decode(r, "message")
	if err != nil {
		return result{}, err
	}
	m := room.Message{From: v.token.Subject}
	wrong := invalid{}
	if fields["body"] == nil || json.Unmarshal(fields["body"], &m.Body) != nil {
		wrong["body"] = []string{"can't be blank"}
	}
	if fields["id"] != nil && json.Unmarshal(fields["id"], &m.ID) != nil {
		wrong["id"] = []string{"is invalid"}
	}
	if len(wrong) > 0 {
		return result{}, wrong
	}
	other := c.UserIDs[0]
	if other == v.id {
		other = c.UserIDs[1]
	}
	m.To = strconv.FormatInt(other, 10)
	if err := m.Check(); err != nil {
		return result{}, invalid{"body": {err.Error()}}
	}
	kept, err := a.Room.Say(r.Context(), m)
	if room.IsRefusal(err) {
		return result{}, problem{http.StatusConflict, err.Error()}
	}
	return result{status: http.StatusCreated, body: map[string]any{"data": kept}}, err
}
