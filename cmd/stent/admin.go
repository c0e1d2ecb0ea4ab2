package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// adminTimeout bounds one request to the admin API.
const adminTimeout = 10 * time.Second

// maxAnswer bounds what is read of one answer.
const maxAnswer = 64 << 20

// adminFlags say how to reach a running proxy's admin API.
type adminFlags struct {
	Admin string `env:"STENT_ADMIN" default:"http://127.0.0.1:4001" placeholder:"URL" help:"Admin API of the proxy, also host:port or unix:/path (by default ${default})."`
	Token string `env:"STENT_TOKEN" placeholder:"TOKEN" help:"Token of the admin API."`
	JSON  bool   `name:"json" help:"Print what the API answers."`
}

// adminClient talks to one admin API.
type adminClient struct {
	base  string
	token string
	http  http.Client
}

// client returns a client for where the flags point to.
func (f adminFlags) client() (*adminClient, error) {
	transport := &http.Transport{}
	c := &adminClient{token: f.Token, http: http.Client{Transport: transport, Timeout: adminTimeout}}
	if path, ok := strings.CutPrefix(f.Admin, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		c.base = "http://localhost"
		return c, nil
	}
	if f.Admin == "off" {
		return nil, usage("the admin API is off: --admin names one that is not")
	}
	c.base = strings.TrimSuffix(f.Admin, "/")
	if !strings.Contains(c.base, "://") {
		c.base = "http://" + c.base
	}
	u, err := url.Parse(c.base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usage("--admin %s: want http://host:port, host:port or unix:/path", f.Admin)
	}
	if strings.HasPrefix(u.Host, ":") { // as a listener's address may be written
		u.Host = "127.0.0.1" + u.Host
		c.base = u.String()
	}
	return c, nil
}

// request is one request to the admin API.
type request struct {
	method string // GET where empty
	path   string // escaped
	query  url.Values
	text   string // the body, if any
}

// do returns the body of the answer.
func (c *adminClient) do(ctx context.Context, r request) ([]byte, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.method, http.MethodGet), target, strings.NewReader(r.text))
	if err != nil {
		return nil, err
	}
	if r.method == http.MethodPost {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL is known to who asked; the reason is what matters.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("ask the admin API at %s: %w", c.base, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the admin API's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("the admin API at %s answered %s", c.base, refusal(resp, body))
	}
	return body, nil
}

// getJSON decodes the answer to r into v.
func (c *adminClient) getJSON(ctx context.Context, r request, v any) error {
	body, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode the admin API's answer: %w", err)
	}
	return nil
}

// refusal is the status of an answer with the detail of its problem
// (RFC 9457), if it has one.
func refusal(resp *http.Response, body []byte) string {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		return resp.Status
	}
	return resp.Status + ": " + problem.Detail
}
