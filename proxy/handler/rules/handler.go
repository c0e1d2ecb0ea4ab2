package rules

import (
	"fmt"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy"
)

// New compiles the rules of one route; it is a proxy.NewHandler, and c is a
// *config.RulesHandler. Its error joins a *config.KeyError for each mistake,
// with paths such as rules[2].when.
func New(c any) (func() proxy.Handler, error) {
	rules, ok := c.(*config.RulesHandler)
	if !ok {
		return nil, fmt.Errorf("rules: want *config.RulesHandler, got %T", c)
	}
	p, err := compile(*rules)
	if err != nil {
		return nil, err
	}
	return func() proxy.Handler { return &handler{program: p} }, nil
}

// handler is the rules of one session.
type handler struct {
	program *program
	subject subject
}

// Message implements proxy.Handler.
func (h *handler) Message(s *proxy.Session, m proxy.Message) proxy.Result {
	h.subject.session = s
	return h.program.decide(&h.subject, message{from: m.From, kind: m.Type, data: m.Data})
}

// Inline implements proxy.Inliner: a rule waits for nothing.
func (h *handler) Inline() bool { return true }
