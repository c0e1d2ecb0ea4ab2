package main

import (
	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/handler/rules"
)

// handlers are the message callbacks that a configuration can name.
var handlers = map[string]proxy.NewHandler{
	"rules": rules.New,
}
