package main

import (
	"context"
	"encoding/json"
	"strconv"
)

type upstreamsCmd struct {
	List upstreamsListCmd `cmd:"" default:"withargs" help:"List the pools and their targets."`
}

type upstreamsListCmd struct {
	adminFlags
}

// Run prints one line for each target.
func (l upstreamsListCmd) Run(s streams) error {
	c, err := l.client()
	if err != nil {
		return err
	}
	if l.JSON {
		var raw json.RawMessage
		if err := c.getJSON(context.Background(), "/api/upstreams", &raw); err != nil {
			return err
		}
		return printJSON(s.out, raw)
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
				Dials    uint64 `json:"dials"`
				Failures uint64 `json:"failures"`
			} `json:"targets"`
		} `json:"upstreams"`
	}
	if err := c.getJSON(context.Background(), "/api/upstreams", &answer); err != nil {
		return err
	}
	t := newTable(s.out, "POOL", "BALANCE", "TARGET", "URL", "STATE", "SESSIONS", "DIALS", "FAILURES")
	for _, pool := range answer.Upstreams {
		for _, target := range pool.Targets {
			t.row(pool.Name, pool.Balance, target.Name, target.URL, target.State, strconv.Itoa(target.Sessions),
				strconv.FormatUint(target.Dials, 10), strconv.FormatUint(target.Failures, 10))
		}
	}
	return t.flush()
}
