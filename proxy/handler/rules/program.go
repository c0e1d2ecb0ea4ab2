package rules

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"golang.org/x/time/rate"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// maxNodes bounds an expression, so that a slip of a generator is an error
// at load and not a slow proxy.
const maxNodes = 1000

// memoryBudget bounds what one run of an expression may build, in elements
// of lists, maps and repeated strings.
const memoryBudget = 100_000

// reportInterval is the least time between two warnings of a kind of one
// route.
const reportInterval = time.Minute

// program is a compiled list of rules. It is shared by all sessions of a
// route.
type program struct {
	rules []rule
	// uses is what any condition or result looks at.
	uses uses
	// lost counts messages dropped because a result failed, and stopped those
	// that were too complex, each with its session.
	lost, stopped atomic.Uint64
	// These let one of them into the log now and then: every message may fail.
	reportLost, reportStopped rate.Sometimes
	// evaluations holds *evaluation: an idle session keeps none.
	evaluations sync.Pool
}

// rule is one compiled rule.
type rule struct {
	when *vm.Program
	// result is what the rule answers; its Type and Data are filled in by
	// compute where that is not nil.
	result  relay.Result
	compute *vm.Program
}

var errNoResult = errors.New("a rule needs a result: reply_text, reply_binary, reply_expr, stop, drop, forward_text or forward_expr")

// compile checks and compiles all rules; its error joins those of all of
// them.
func compile(rules config.RulesHandler) (*program, error) {
	p := &program{
		rules:         make([]rule, len(rules)),
		reportLost:    rate.Sometimes{Interval: reportInterval},
		reportStopped: rate.Sometimes{Interval: reportInterval},
	}
	p.evaluations.New = func() any { return newEvaluation() }
	var errs []error
	for i, c := range rules {
		key := fmt.Sprintf("rules[%d]", i)
		var err error
		if p.rules[i].when, err = compileExpr(c.When, &p.uses, expr.AsBool()); err != nil {
			errs = append(errs, &config.KeyError{Path: key + ".when", Err: err})
		}
		if err := p.rules[i].setResult(key, c, &p.uses); err != nil {
			errs = append(errs, err)
		}
	}
	return p, errors.Join(errs...)
}

// setResult takes the one result that c names.
func (r *rule) setResult(key string, c config.Rule, u *uses) error {
	var named []string
	set := func(name string, res relay.Result) {
		named = append(named, name)
		r.result = res
	}
	if c.ReplyText != nil {
		set("reply_text", relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte(*c.ReplyText)})
	}
	if c.ReplyBinary != nil {
		set("reply_binary", relay.Result{Verdict: relay.Reply, Type: frame.Binary, Data: *c.ReplyBinary})
	}
	if c.Stop != nil {
		set("stop", relay.Result{Verdict: relay.Stop, Code: c.Stop.Code, Reason: c.Stop.Reason})
	}
	if c.Drop {
		set("drop", relay.Result{Verdict: relay.Drop})
	}
	if c.ForwardText != nil {
		set("forward_text", relay.Result{Verdict: relay.Forward, Type: frame.Text, Data: []byte(*c.ForwardText)})
	}
	source := c.ReplyExpr
	if c.ReplyExpr != "" {
		set("reply_expr", relay.Result{Verdict: relay.Reply})
	}
	if c.ForwardExpr != "" {
		set("forward_expr", relay.Result{Verdict: relay.Forward})
		source = c.ForwardExpr
	}
	switch len(named) {
	case 0:
		return &config.KeyError{Path: key, Err: errNoResult}
	case 1:
	default:
		return &config.KeyError{Path: key + "." + named[1], Err: fmt.Errorf("a rule has one result, this one has %s too", named[0])}
	}
	if source == "" {
		return nil
	}
	var err error
	if r.compute, err = compileExpr(source, u); err != nil {
		return &config.KeyError{Path: key + "." + named[0], Err: err}
	}
	return nil
}

// compileExpr compiles one expression and notes what it uses. Its error is
// one line that says where in the expression.
func compileExpr(source string, u *uses, extra ...expr.Option) (*vm.Program, error) {
	names := &namesVisitor{}
	options := append([]expr.Option{
		expr.Env(environmentTypes),
		expr.MaxNodes(maxNodes),
		expr.Function("fromJSON", fromJSON, new(func(string) any)),
		expr.Patch(names),
	}, extra...)
	compiled, err := expr.Compile(source, options...)
	if err != nil {
		return nil, names.describe(err)
	}
	if names.hidden != nil {
		return nil, names.hidden
	}
	*u |= names.uses
	return compiled, nil
}
