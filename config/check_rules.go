package config

import "strings"

// maxReason is what a close frame has room for beside its code (RFC 6455,
// section 5.5).
const maxReason = 123

func (c *checker) handler(h Handler) {
	if h.Name == "" {
		c.fail(h.KeyPath, "want the name of a handler")
		return
	}
	if h.Name != rulesHandler {
		return
	}
	rules, ok := h.Config.(*RulesHandler)
	if !ok || rules == nil {
		c.fail(h.KeyPath, "the options of handler rules must be a *config.RulesHandler")
		return
	}
	at := join(h.KeyPath, h.Name)
	if len(*rules) == 0 {
		c.fail(at, "no rules")
	}
	for i, rule := range *rules {
		c.rule(rule, item(at, i))
	}
}

func (c *checker) rule(r Rule, path string) {
	if r.When == "" {
		c.fail(join(path, "when"), `required: a condition; "true" holds always`)
	}
	switch results := r.results(); len(results) {
	case 1:
	case 0:
		c.fail(path, "a rule needs a result: reply_text, reply_binary, reply_expr, forward_text, forward_expr, drop or stop")
	default:
		c.fail(path, "a rule has one result, not %s", strings.Join(results, " and "))
	}
	if r.Stop == nil {
		return
	}
	if code := r.Stop.Code; code != 0 && !sentCode(code) {
		c.fail(join(path, "stop.code"), "%d is no close code to send; want 0, 1000 to 1003, 1007 to 1013, or 3000 to 4999", code)
	}
	if len(r.Stop.Reason) > maxReason {
		c.fail(join(path, "stop.reason"), "a close reason has at most %d bytes", maxReason)
	}
}

// results lists the keys of a rule that are results.
func (r Rule) results() []string {
	var list []string
	for _, result := range []struct {
		key string
		set bool
	}{
		{"reply_text", r.ReplyText != nil},
		{"reply_binary", r.ReplyBinary != nil},
		{"reply_expr", r.ReplyExpr != ""},
		{"forward_text", r.ForwardText != nil},
		{"forward_expr", r.ForwardExpr != ""},
		{"drop", r.Drop},
		{"stop", r.Stop != nil},
	} {
		if result.set {
			list = append(list, result.key)
		}
	}
	return list
}
