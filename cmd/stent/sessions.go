package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/stentproxy/stent/proxy"
)

type sessionsCmd struct {
	List  sessionsListCmd  `cmd:"" default:"withargs" help:"List sessions (the default)."`
	Show  sessionsShowCmd  `cmd:"" help:"Show all that is known of one session."`
	Close sessionsCloseCmd `cmd:"" help:"Close a session."`
	Send  sessionsSendCmd  `cmd:"" help:"Send a text message to one side of a session."`
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
		if err := c.getJSON(ctx, request{path: "/api/sessions", query: query}, &page); err != nil {
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
		var e proxy.SessionInfo
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("decode a session: %w", err)
		}
		t.row(e.Session, e.ID, e.Route, targetText(e), e.State.String(), e.Mode, e.Remote, age(e.Opened),
			strconv.Itoa(e.Attempt), sideText(e.Client), sideText(e.UpstreamSide))
	}
	return t.flush()
}

// targetText is where a session is connected to, as pool/target.
func targetText(e proxy.SessionInfo) string {
	if e.Target == "" {
		return e.Upstream
	}
	return e.Upstream + "/" + e.Target
}

// sideText is messages and bytes in one cell.
func sideText(c proxy.SideInfo) string {
	return strconv.FormatUint(c.Messages, 10) + " / " + humanize.IBytes(c.Bytes)
}

// age is how long ago t was, in whole seconds.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Truncate(time.Second).String()
}

type sessionsShowCmd struct {
	adminFlags
	Session string `arg:"" help:"Key of the session."`
}

// Run prints one line for each thing known.
func (c sessionsShowCmd) Run(s streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	raw, err := client.do(context.Background(), request{path: sessionPath(c.Session)})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, json.RawMessage(raw))
	}
	var e proxy.SessionInfo
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("decode a session: %w", err)
	}
	t := newTable(s.out)
	for _, field := range [][2]string{
		{"session", e.Session},
		{"id", e.ID},
		{"route", e.Route},
		{"target", targetText(e)},
		{"state", e.State.String()},
		{"mode", e.Mode},
		{"engine", e.Engine},
		{"remote", e.Remote},
		{"opened", e.Opened.Format(time.RFC3339)},
		{"age", age(e.Opened)},
		{"attempt", strconv.Itoa(e.Attempt)},
		{"restarts", strconv.Itoa(e.Restarts)},
		{"held", (time.Duration(e.HeldSeconds * float64(time.Second))).Round(time.Millisecond).String()},
		{"subprotocol", e.Subprotocol},
		{"from client", sideText(e.Client)},
		{"from upstream", sideText(e.UpstreamSide)},
	} {
		t.row(field[0], field[1])
	}
	return t.flush()
}

type sessionsCloseCmd struct {
	adminFlags
	Session string `arg:"" help:"Key of the session."`
	Code    int    `default:"1008" help:"Close code for the client (by default ${default})."`
	Reason  string `help:"Reason for the client, at most 123 bytes."`
}

// Run returns when the close has been asked for, not when it is done.
func (c sessionsCloseCmd) Run(streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"code": {strconv.Itoa(c.Code)}}
	if c.Reason != "" {
		query.Set("reason", c.Reason)
	}
	_, err = client.do(context.Background(), request{method: http.MethodDelete, path: sessionPath(c.Session), query: query})
	return err
}

type sessionsSendCmd struct {
	adminFlags
	Session string `arg:"" help:"Key of the session."`
	Text    string `arg:"" help:"The message."`
	To      string `default:"client" enum:"client,upstream" help:"Side that gets it: client or upstream (by default ${default})."`
}

// Run prints what became of the message: written, held or gone.
func (c sessionsSendCmd) Run(s streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	raw, err := client.do(context.Background(), request{
		method: http.MethodPost, path: sessionPath(c.Session) + "/messages", query: url.Values{"to": {c.To}}, text: c.Text,
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, json.RawMessage(raw))
	}
	var answer struct {
		Result string `json:"result"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("decode the admin API's answer: %w", err)
	}
	_, err = fmt.Fprintln(s.out, printable(answer.Result))
	return err
}

// sessionPath is the path of one session in the admin API.
func sessionPath(key string) string { return "/api/sessions/" + url.PathEscape(key) }
