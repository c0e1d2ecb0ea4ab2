package proxy

import (
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

func TestWriteRoutes(t *testing.T) {
	cfg := &config.Config{
		Endpoint:    []config.Plug{{Name: "request_id"}, {Name: "logger"}},
		Pipelines:   map[string][]config.Plug{"browser": {{Name: "secure_headers"}, {Name: "head"}}, "empty": nil},
		PipeThrough: []string{"browser"},
		Scopes: []config.Scope{{Path: "/live", Host: "chat.example.com", Routes: []config.Route{
			{Path: "/socket/*", Upstream: "chat", StripPrefix: true, Methods: []string{"GET", "POST"}, HTTP: true, PipeThrough: []string{"empty"}},
		}}},
		Routes: []config.Route{{Path: "/echo", Upstream: config.UpstreamNone}},
		Upstreams: map[string]config.Upstream{"chat": {
			Balance: config.Balance{Kind: config.BalanceRandom},
			Targets: []config.Target{{Name: "blue", URL: "ws://10.0.0.1:4000"}, {Name: "10.0.0.2:4000", URL: "ws://10.0.0.2:4000"}},
		}},
	}
	table := mustTable(t, cfg)
	table.Endpoints[0].Mode, table.Endpoints[1].Mode = "relay", "message"
	var b strings.Builder
	if err := WriteRoutes(&b, table, cfg.Upstreams); err != nil {
		t.Fatal(err)
	}
	want := `PATH            HOST              METHODS   THROUGH         MODE     HTTP  UPSTREAM
/live/socket/*  chat.example.com  GET,POST  browser, empty  relay    yes   chat (prefix stripped)
/echo           *                 *         browser         message  -     none

PIPELINES
endpoint  request_id -> logger
browser   secure_headers -> head
empty     -

UPSTREAMS
chat  random  blue           ws://10.0.0.1:4000
              10.0.0.2:4000  ws://10.0.0.2:4000
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
