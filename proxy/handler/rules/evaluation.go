package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/expr-lang/expr/vm"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/phoenix"
	"github.com/stentproxy/stent/proxy/relay"
)

// message is what the rules look at.
type message struct {
	from relay.Side
	kind frame.Opcode
	data []byte
}

// decide returns the result of the first rule whose condition holds.
func (p *program) decide(s *subject, m message) relay.Result {
	e := p.evaluations.Get().(*evaluation)
	e.begin(s, m, p.uses)
	defer func() {
		e.end()
		p.evaluations.Put(e)
	}()
	for i := range p.rules {
		r := &p.rules[i]
		holds, err := e.machine.Run(r.when, e.environment)
		if errors.Is(err, errTooComplex) {
			return p.refused(s, i, err)
		}
		if err != nil || holds != true {
			continue
		}
		result, err := r.answer(e)
		switch {
		case errors.Is(err, errTooComplex):
			return p.refused(s, i, err)
		case err != nil:
			return p.failed(s, i, err)
		}
		return result
	}
	return relay.Result{}
}

// failed drops a message: the result of a rule could not be computed.
func (p *program) failed(s *subject, rule int, err error) relay.Result {
	lost := p.lost.Add(1)
	p.reportLost.Do(func() {
		s.session.Log().Warn("a rule's result failed, its message is dropped",
			zap.Int("rule", rule), zap.Uint64("dropped_so_far", lost), zap.Error(err))
	})
	return relay.Result{Verdict: relay.Drop}
}

// codeTooComplex closes a session whose message no rule can judge.
const codeTooComplex = 1008

// refused stops a session: a rule had to look at a message that it can't
// decode, and a backend may.
func (p *program) refused(s *subject, rule int, err error) relay.Result {
	stopped := p.stopped.Add(1)
	p.reportStopped.Do(func() {
		s.session.Log().Warn("a message is too complex for a rule, its session is stopped",
			zap.Int("rule", rule), zap.Uint64("stopped_so_far", stopped), zap.Error(err))
	})
	return relay.Result{Verdict: relay.Stop, Code: codeTooComplex, Reason: errTooComplex.Error()}
}

// answer returns the rule's result, computed where it is an expression.
func (r *rule) answer(e *evaluation) (relay.Result, error) {
	result := r.result
	if r.compute == nil {
		return result, nil
	}
	value, err := e.machine.Run(r.compute, e.environment)
	if err != nil {
		return result, err
	}
	result.Type, result.Data, err = encode(value)
	return result, err
}

// encode makes a message of an expression's value: a string is text, or
// binary where it is not UTF-8; bytes are binary; anything else is JSON text.
func encode(value any) (frame.Opcode, []byte, error) {
	switch v := value.(type) {
	case string:
		if !utf8.ValidString(v) {
			return frame.Binary, []byte(v), nil
		}
		return frame.Text, []byte(v), nil
	case []byte:
		return frame.Binary, v, nil
	}
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	if err := to.Encode(value); err != nil {
		return 0, nil, fmt.Errorf("write the result as JSON: %w", err)
	}
	return frame.Text, bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// evaluation is the environment and the machine of one message at a time.
type evaluation struct {
	machine     vm.VM
	environment map[string]any

	message message
	text    string
	decoded any
	// topic and event are of Phoenix messages; empty otherwise.
	topic, event string
	// hasText, hasJSON and hasTopic say whether those are worked out.
	hasText, hasJSON, hasTopic bool
	// size is the number that environment["size"] holds: messages of one
	// size after the other need it boxed only once.
	size int
}

func newEvaluation() *evaluation {
	e := &evaluation{machine: vm.VM{MemoryBudget: memoryBudget}, size: -1}
	e.environment = map[string]any{
		textFunc:  e.messageText,
		jsonFunc:  e.messageJSON,
		topicFunc: func() string { e.channel(); return e.topic },
		eventFunc: func() string { e.channel(); return e.event },
	}
	return e
}

// The values of from and type, boxed once.
var (
	sides = [...]any{relay.Client: relay.Client.String(), relay.Upstream: relay.Upstream.String()}
	kinds = map[frame.Opcode]any{frame.Text: frame.Text.String(), frame.Binary: frame.Binary.String()}
)

// begin puts the names in u ready for one message.
func (e *evaluation) begin(s *subject, m message, u uses) {
	e.message = m
	e.environment["from"] = sides[m.from]
	e.environment["type"] = kinds[m.kind]
	if u&usesSize != 0 && e.size != len(m.data) {
		e.size = len(m.data)
		e.environment["size"] = e.size
	}
	s.fill(e.environment, u)
}

// end forgets the message, which is not ours any more. What the machine's
// stack still points to goes with the pool.
func (e *evaluation) end() {
	e.message = message{}
	e.text, e.hasText = "", false
	e.decoded, e.hasJSON = nil, false
	e.topic, e.event, e.hasTopic = "", "", false
	clear(e.machine.Stack[:cap(e.machine.Stack)])
	clear(e.machine.Variables)
}

func (e *evaluation) messageText() string {
	if !e.hasText {
		e.hasText = true
		if e.message.kind == frame.Text {
			e.text = string(e.message.data)
		}
	}
	return e.text
}

// channel works out the topic and the event of a Phoenix message. For one
// that has several it panics, which the machine makes the error of its run.
func (e *evaluation) channel() {
	if e.hasTopic {
		return
	}
	e.hasTopic = true
	decode := phoenix.FromClient
	if e.message.from == relay.Upstream {
		decode = phoenix.FromServer
	}
	m, err := decode(e.message.data)
	if errors.Is(err, phoenix.ErrAmbiguous) {
		panic(errEqualKeys)
	}
	if err == nil {
		e.topic, e.event = string(m.Topic), string(m.Event)
	}
}

// messageJSON is nil for what is no JSON. For what is too complex it panics,
// which the machine makes the error of its run.
func (e *evaluation) messageJSON() any {
	if !e.hasJSON {
		e.hasJSON = true
		if e.message.kind == frame.Text {
			var err error
			if e.decoded, err = decode(e.message.data); errors.Is(err, errTooComplex) {
				panic(err)
			}
		}
	}
	return e.decoded
}
