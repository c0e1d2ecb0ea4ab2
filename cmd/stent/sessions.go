package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"
)

type sessionsCmd struct {
	List sessionsListCmd `cmd:"" default:"withargs" help:"List sessions."`
}

type sessionsListCmd struct {
	adminFlags
	Route    string `placeholder:"PATH" help:"Only those of this route."`
	Upstream string `placeholder:"POOL" help:"Only those of this pool."`
	Target   string `placeholder:"TARGET" help:"Only those on this target."`
	ID       string `name:"id" placeholder:"ID" help:"Only those with this socket id."`
	State    string `placeholder:"STATE" help:"Only those in this state: connecting, open, held or closing."`
	Limit    int    `default:"1000" help:"At most so many."`
}

// sessionEntry is one session as the admin API shows it.
type sessionEntry struct {
	Session      string      `json:"session"`
	ID           string      `json:"id"`
	Route        string      `json:"route"`
	Upstream     string      `json:"upstream"`
	Target       string      `json:"target"`
	State        string      `json:"state"`
	Mode         string      `json:"mode"`
	Remote       string      `json:"remote"`
	Opened       time.Time   `json:"opened"`
	Attempt      int         `json:"attempt"`
	Client       sideCounter `json:"client"`
	UpstreamSide sideCounter `json:"upstream_side"`
}

// sideCounter is what one side of a session has sent.
type sideCounter struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// Run lists page after page.
func (l sessionsListCmd) Run(s streams) error {
	c, err := l.client()
	if err != nil {
		return err
	}
	entries, err := l.fetch(context.Background(), c)
	if err != nil {
		return err
	}
	if l.JSON {
		return printJSON(s.out, map[string]any{"sessions": entries})
	}
	return printSessions(s.out, entries)
}

// fetch follows the API's pages up to the limit.
func (l sessionsListCmd) fetch(ctx context.Context, c *adminClient) ([]json.RawMessage, error) {
	entries := []json.RawMessage{}
	query := url.Values{}
	for name, value := range map[string]string{
		"route": l.Route, "upstream": l.Upstream, "target": l.Target, "id": l.ID, "state": l.State,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for len(entries) < l.Limit {
		query.Set("limit", strconv.Itoa(l.Limit-len(entries)))
		var page struct {
			Sessions []json.RawMessage `json:"sessions"`
			Next     string            `json:"next"`
		}
		if err := c.getJSON(ctx, "/api/sessions?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		entries = append(entries, page.Sessions...)
		if page.Next == "" || len(page.Sessions) == 0 {
			break
		}
		query.Set("cursor", page.Next)
	}
	return entries, nil
}

func printSessions(w io.Writer, entries []json.RawMessage) error {
	t := newTable(w, "SESSION", "ID", "ROUTE", "TARGET", "STATE", "MODE", "REMOTE", "AGE", "ATTEMPT", "FROM CLIENT", "FROM UPSTREAM")
	for _, raw := range entries {
		var e sessionEntry
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("decode a session: %w", err)
		}
		target := e.Upstream
		if e.Target != "" {
			target += "/" + e.Target
		}
		t.row(e.Session, e.ID, e.Route, target, e.State, e.Mode, e.Remote, age(e.Opened),
			strconv.Itoa(e.Attempt), e.Client.String(), e.UpstreamSide.String())
	}
	return t.flush()
}

// String is "3 messages, 1.2 kB" in a column's width.
func (c sideCounter) String() string {
	return strconv.FormatUint(c.Messages, 10) + " / " + bytesText(c.Bytes)
}

// age is how long ago t was, in whole seconds.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Truncate(time.Second).String()
}
