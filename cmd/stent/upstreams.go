package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

type upstreamsCmd struct {
	List    upstreamsListCmd    `cmd:"" default:"withargs" help:"List the pools and their targets (the default)."`
	Drain   upstreamsDrainCmd   `cmd:"" help:"Keep new sessions off a target and move those that it has."`
	Undrain upstreamsUndrainCmd `cmd:"" help:"Let sessions onto a target again."`
}

type upstreamsListCmd struct {
	adminFlags
}

// Run prints one line for each target.
func (c upstreamsListCmd) Run(s streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	raw, err := client.do(context.Background(), request{path: "/api/upstreams"})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, json.RawMessage(raw))
	}
	var answer struct {
		Upstreams []struct {
			Name    string `json:"name"`
			Balance string `json:"balance"`
			Targets []struct {
				Name     string `json:"name"`
				URL      string `json:"url"`
				State    string `json:"state"`
				Sessions int    `json:"sessions"`
				Dials    int    `json:"dials"`
				Failures int    `json:"failures"`
			} `json:"targets"`
		} `json:"upstreams"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("decode the pools: %w", err)
	}
	t := newTable(s.out, "POOL", "BALANCE", "TARGET", "URL", "STATE", "SESSIONS", "DIALS", "FAILURES")
	for _, pool := range answer.Upstreams {
		for _, target := range pool.Targets {
			t.row(pool.Name, pool.Balance, target.Name, target.URL, target.State,
				strconv.Itoa(target.Sessions), strconv.Itoa(target.Dials), strconv.Itoa(target.Failures))
		}
	}
	return t.flush()
}

// targetArgs name one target.
type targetArgs struct {
	Pool   string `arg:"" help:"Name of the pool."`
	Target string `arg:"" help:"Name of the target: host:port where it was given none."`
}

// path is that of the target's drain in the admin API.
func (t targetArgs) path() string {
	return "/api/upstreams/" + url.PathEscape(t.Pool) + "/" + url.PathEscape(t.Target) + "/drain"
}

type upstreamsDrainCmd struct {
	adminFlags
	targetArgs
	Close bool `help:"End the sessions that can't be moved, for want of continuity."`
}

// Run returns when the drain has begun.
func (c upstreamsDrainCmd) Run(streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"close": {strconv.FormatBool(c.Close)}}
	_, err = client.do(context.Background(), request{method: http.MethodPut, path: c.path(), query: query})
	return err
}

type upstreamsUndrainCmd struct {
	adminFlags
	targetArgs
}

// Run returns when new sessions may come.
func (c upstreamsUndrainCmd) Run(streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	_, err = client.do(context.Background(), request{method: http.MethodDelete, path: c.path()})
	return err
}
