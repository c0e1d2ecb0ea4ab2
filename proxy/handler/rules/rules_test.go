package rules

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// fakeSession is one session with everything set.
type fakeSession struct{}

func (fakeSession) Key() string   { return "s-1" }
func (fakeSession) ID() string    { return "user_socket:42" }
func (fakeSession) Route() string { return "/socket/*" }
func (fakeSession) Attempt() int  { return 2 }
func (fakeSession) Header() http.Header {
	return http.Header{"Origin": {"https://example.com"}, "X-Room": {"a", "b"}}
}
func (fakeSession) Log() *zap.Logger       { return zap.NewNop() }
func (fakeSession) Claims() map[string]any { return map[string]any{"sub": "42", "admin": true} }

var (
	drop = config.Rule{Drop: true}
	pass = relay.Result{}
)

func when(condition string, r config.Rule) config.Rule {
	r.When = condition
	return r
}

func ptr[T any](v T) *T { return &v }

func mustCompile(t testing.TB, rules ...config.Rule) *program {
	t.Helper()
	p, err := compile(rules)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return p
}

func text(s string) message { return message{from: relay.Client, kind: frame.Text, data: []byte(s)} }

func TestConditions(t *testing.T) {
	fromClient := text(`{"op":"ping","n":3,"deep":{"list":[1,2]},"big":9007199254740993}`)
	binary := message{from: relay.Upstream, kind: frame.Binary, data: []byte(`{"op":"ping"}`)}
	for _, tt := range []struct {
		name, condition string
		message         message
		want            bool
	}{
		{"constant", `true`, fromClient, true},
		{"from the client", `from == "client"`, fromClient, true},
		{"from the upstream", `from == "client"`, binary, false},
		{"type text", `type == "text"`, fromClient, true},
		{"type binary", `type == "binary"`, binary, true},
		{"size", `size == 13`, binary, true},
		{"size above", `size > 4096`, fromClient, false},
		{"text", `text contains "ping"`, fromClient, true},
		{"text of a binary message", `text == ""`, binary, true},
		{"text matches", `text matches "p.ng"`, fromClient, true},
		{"json", `json?.op == "ping"`, fromClient, true},
		{"json number", `json.n == 3 && json.n + 1 > 3.5`, fromClient, true},
		{"json deep", `json?.deep?.list[1] == 2`, fromClient, true},
		{"json beyond float64", `json.big == 9007199254740993`, fromClient, true},
		{"json missing key", `json?.nothing == nil`, fromClient, true},
		{"json missing key deep", `json?.nothing?.more == 1`, fromClient, false},
		{"json of text that is none", `json == nil`, text("hello"), true},
		{"json with something behind it", `json == nil`, text(`{} {}`), true},
		{"json of a binary message", `json == nil`, binary, true},
		{"json scalar", `json == 7`, text(" 7 "), true},
		{"json whole list", `all(json, # > 0)`, text("[1,2,3]"), true},
		{"json as a condition", `json.yes`, text(`{"yes":true}`), true},
		{"a condition that is no bool", `json.yes`, text(`{"yes":1}`), false},
		{"optional member of what is no map", `json?.op == "ping"`, text(`[1]`), false},
		{"member of nil", `json.op == "ping"`, text("hello"), false},
		{"compare what can't be", `json.op > 3`, fromClient, false},
		{"JSON in a string", `fromJSON(json.s).n == 9007199254740993`, text(`{"s":"{\"n\":9007199254740993}"}`), true},
		{"JSON in a string that is none", `fromJSON(text) == nil`, text("hello"), false},
		{"session", `session == "s-1"`, fromClient, true},
		{"id", `id startsWith "user_socket:"`, fromClient, true},
		{"route", `route == "/socket/*"`, fromClient, true},
		{"attempt", `attempt > 1`, fromClient, true},
		{"header", `headers["Origin"] == "https://example.com"`, fromClient, true},
		{"header in lower case", `headers["origin"] endsWith "example.com"`, fromClient, true},
		{"header as a member", `headers.Origin != ""`, fromClient, true},
		{"header with two values", `headers["x-room"] == "a, b"`, fromClient, true},
		{"header that is not there", `headers["X-None"] == ""`, fromClient, true},
		{"claims", `claims.sub == "42" && claims.admin`, fromClient, true},
		{"claim that is not there", `claims.nothing == nil`, fromClient, true},
		{"own variable", `let op = json?.op; op == "ping" || op == "pong"`, fromClient, true},
		{"budget", `len(repeat(text, 1000000)) > 0`, fromClient, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustCompile(t, when(tt.condition, drop))
			got := p.decide(&subject{session: fakeSession{}}, tt.message).Verdict == relay.Drop
			if got != tt.want {
				t.Errorf("%s holds: got %v, want %v", tt.condition, got, tt.want)
			}
		})
	}
}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule config.Rule
		want relay.Result
	}{
		{"drop", config.Rule{Drop: true}, relay.Result{Verdict: relay.Drop}},
		{"reply text", config.Rule{ReplyText: ptr("pong")}, relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte("pong")}},
		{"reply with nothing in it", config.Rule{ReplyText: ptr("")}, relay.Result{Verdict: relay.Reply, Type: frame.Text}},
		{"reply binary", config.Rule{ReplyBinary: ptr(config.Base64{0, 255})}, relay.Result{Verdict: relay.Reply, Type: frame.Binary, Data: []byte{0, 255}}},
		{"stop", config.Rule{Stop: &config.Stop{Code: 1008, Reason: "too long"}}, relay.Result{Verdict: relay.Stop, Code: 1008, Reason: "too long"}},
		{"forward text", config.Rule{ForwardText: ptr("***")}, relay.Result{Verdict: relay.Forward, Type: frame.Text, Data: []byte("***")}},
		{"text of an expression", config.Rule{ForwardExpr: `upper(json.op) + "!"`}, relay.Result{Verdict: relay.Forward, Type: frame.Text, Data: []byte("PING!")}},
		{"bytes of an expression", config.Rule{ReplyExpr: `b"\x00\xff"`}, relay.Result{Verdict: relay.Reply, Type: frame.Binary, Data: []byte{0, 255}}},
		{"a string that is not UTF-8", config.Rule{ReplyExpr: `fromBase64("AP8=")`}, relay.Result{Verdict: relay.Reply, Type: frame.Binary, Data: []byte{0, 255}}},
		{"a map of an expression", config.Rule{ReplyExpr: `{"re": json.id, "ok": true}`}, relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte(`{"ok":true,"re":9007199254740993}`)}},
		{"no HTML escapes", config.Rule{ReplyExpr: `["<b>"]`}, relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte(`["<b>"]`)}},
		{"a number of an expression", config.Rule{ReplyExpr: `size`}, relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte("35")}},
		{"nil of an expression", config.Rule{ReplyExpr: `json.nothing`}, relay.Result{Verdict: relay.Reply, Type: frame.Text, Data: []byte("null")}},
		{"an expression that fails", config.Rule{ForwardExpr: `json.nothing.more`}, relay.Result{Verdict: relay.Drop}},
		{"a value that JSON has not", config.Rule{ReplyExpr: `[1 / 0]`}, relay.Result{Verdict: relay.Drop}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustCompile(t, when("true", tt.rule))
			got := p.decide(&subject{session: fakeSession{}}, text(`{"op":"ping","id":9007199254740993}`))
			if got.Verdict != tt.want.Verdict || got.Type != tt.want.Type || string(got.Data) != string(tt.want.Data) ||
				got.Code != tt.want.Code || got.Reason != tt.want.Reason {
				t.Errorf("got %+v (%q), want %+v (%q)", got, got.Data, tt.want, tt.want.Data)
			}
		})
	}
}

func TestFirstRuleThatHoldsDecides(t *testing.T) {
	p := mustCompile(t,
		when(`json.op == "never"`, config.Rule{ReplyText: ptr("0")}),
		when(`size > 3`, config.Rule{ReplyText: ptr("1")}),
		when(`size > 2`, config.Rule{ReplyText: ptr("2")}),
	)
	for _, tt := range []struct {
		message string
		want    string
		verdict relay.Verdict
	}{
		{"four", "1", relay.Reply},
		{"two", "2", relay.Reply},
		{"1", "", relay.OK},
	} {
		got := p.decide(&subject{session: fakeSession{}}, text(tt.message))
		if got.Verdict != tt.verdict || string(got.Data) != tt.want {
			t.Errorf("%q: got %v %q, want %v %q", tt.message, got.Verdict, got.Data, tt.verdict, tt.want)
		}
	}
}

// A result that fails takes its message with it, which the log says, but not
// for each of them.
func TestFailedResult(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	p := mustCompile(t,
		when(`false`, drop),
		when(`true`, config.Rule{ReplyExpr: `json.op`}),
	)
	s := &subject{session: loggedSession{log: zap.New(core)}}
	for range 3 {
		if got := p.decide(s, text("no JSON")); got.Verdict != relay.Drop {
			t.Errorf("got %v, want drop", got.Verdict)
		}
	}
	if n := logs.Len(); n != 1 {
		t.Fatalf("got %d lines in the log, want 1", n)
	}
	line := logs.All()[0]
	if rule := line.ContextMap()["rule"]; line.Level != zap.WarnLevel || rule != int64(1) {
		t.Errorf("got %v, rule %v; want a warning of rule 1", line.Level, rule)
	}
}

// JSON that is not decoded is not taken for a text that is none: a backend
// may decode it.
func TestTooComplex(t *testing.T) {
	nested := func(levels int) string {
		return `{"op":"delete","x":` + strings.Repeat("[", levels-1) + strings.Repeat("]", levels-1) + "}"
	}
	list := func(values int) string {
		return `{"op":"delete","x":[` + strings.Repeat("0,", values-4) + "0]}"
	}
	const condition = `json?.op == "delete"`
	stop := relay.Result{Verdict: relay.Stop, Code: 1008, Reason: "message too complex to check"}
	dropped := relay.Result{Verdict: relay.Drop}
	for _, tt := range []struct {
		name    string
		rule    config.Rule
		message string
		want    relay.Result
	}{
		{"as deep as may be", when(condition, drop), nested(maxDepth), dropped},
		{"too deep", when(condition, drop), nested(maxDepth + 1), stop},
		{"too deep for the decoder", when(condition, drop), nested(10_001), stop},
		{"as many values as may be", when(condition, drop), list(maxValues), dropped},
		{"too many values", when(condition, drop), list(maxValues + 1), stop},
		{"too many members", when(condition, drop), "{" + strings.Repeat(`"a":0,`, maxValues) + `"op":"delete"}`, stop},
		{"equal keys", when(condition, drop), `{"op":"delete","op":"x"}`, stop},
		{"equal keys, one escaped", when(condition, drop), `{"op":"delete","o\u0070":"x"}`, stop},
		{"equal keys inside", when(condition, drop), `{"op":"delete","x":[{"a":{"b":1},"a":1}]}`, stop},
		{"equal keys of two objects", when(condition, drop), `{"op":"delete","x":[{"op":1},{"op":1}]}`, dropped},
		{"blanks before it", when(condition, drop), " \r\n\t" + list(maxValues+1), stop},
		{"in a result", when("true", config.Rule{ReplyExpr: "json.op"}), nested(maxDepth + 1), stop},
		{"by fromJSON", when(`fromJSON(text).op == "delete"`, drop), list(maxValues + 1), stop},
		{"by fromJSON, equal keys", when(`(text | fromJSON()).op == "delete"`, drop), `{"op":"delete","op":"x"}`, stop},
		{"two topics", when(`topic == "secret"`, drop), `{"topic":"secret","topic":"t","event":"e","payload":{},"ref":"1"}`, stop},
		{"two events", when(`event == "e"`, drop), `{"topic":"t","event":"e","event":"f","payload":{},"ref":"1"}`, stop},
		{"not looked at", when(`size > 10 || json.op == "x"`, drop), nested(maxDepth + 1), dropped},
		{"text inside", when(condition, drop), `{"op":"delete","x":"` + strings.Repeat(`[,{:\"`, maxValues) + `"}`, dropped},
		{"text that is no JSON", when(condition, drop), strings.Repeat("a, b [", maxValues), pass},
		{"malformed", when(condition, drop), "{]" + list(maxValues+1), pass},
		{"something behind it", when(condition, drop), "{} " + list(maxValues+1), pass},
		{"cut inside a string", when(condition, drop), `{"op":"delete\`, pass},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustCompile(t, tt.rule)
			got := p.decide(&subject{session: fakeSession{}}, text(tt.message))
			if got.Verdict != tt.want.Verdict || got.Code != tt.want.Code || got.Reason != tt.want.Reason {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// That sessions are stopped is in the log, but not for each of them.
func TestTooComplexIsLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	p := mustCompile(t, when(`false`, drop), when(`json == nil`, drop))
	s := &subject{session: loggedSession{log: zap.New(core)}}
	for range 3 {
		p.decide(s, text(strings.Repeat("[", maxDepth+1)))
	}
	if n := logs.Len(); n != 1 {
		t.Fatalf("got %d lines in the log, want 1", n)
	}
	line := logs.All()[0]
	if rule := line.ContextMap()["rule"]; line.Level != zap.WarnLevel || rule != int64(1) {
		t.Errorf("got %v, rule %v; want a warning of rule 1", line.Level, rule)
	}
}

type loggedSession struct {
	fakeSession
	log *zap.Logger
}

func (s loggedSession) Log() *zap.Logger { return s.log }

func TestMessagesDoNotMix(t *testing.T) {
	p := mustCompile(t, when(`json?.op == "a" && text contains "a"`, config.Rule{ReplyExpr: "text"}))
	s := &subject{session: fakeSession{}}
	for _, m := range []string{`{"op":"a"}`, `{"op":"b"}`, "a", "", `{"op":"a","n":2}`} {
		got := p.decide(s, text(m))
		if strings.HasPrefix(m, `{"op":"a"`) {
			if string(got.Data) != m {
				t.Errorf("%q: got %q", m, got.Data)
			}
		} else if got.Verdict != pass.Verdict {
			t.Errorf("%q: got %v, want no result", m, got.Verdict)
		}
	}
}

func TestJSONIsParsedOnlyWhenReached(t *testing.T) {
	p := mustCompile(t, when(`from == "upstream" && json.op == "ping"`, drop))
	e := newEvaluation()
	e.begin(&subject{session: fakeSession{}}, text(`{"op":"ping"}`), p.uses)
	if _, err := e.machine.Run(p.rules[0].when, e.environment); err != nil {
		t.Fatal(err)
	}
	if e.hasJSON || e.hasText {
		t.Errorf("worked out for a message that the first operand settled: json %v, text %v", e.hasJSON, e.hasText)
	}
}

func TestBadRules(t *testing.T) {
	long := strings.Repeat("true && ", maxNodes) + "true"
	for _, tt := range []struct {
		name  string
		rules []config.Rule
		want  []string
	}{
		{"typo", []config.Rule{when(`jsn?.op == "x"`, drop)}, []string{`rules[0].when: unknown name jsn at column 1 of the expression; did you mean "json"?`}},
		{"unknown name", []config.Rule{when(`size > 1 && zzzzz`, drop)}, []string{`rules[0].when: unknown name zzzzz at column 13 of the expression`}},
		{"second line", []config.Rule{when("true &&\n nope", drop)}, []string{`rules[0].when: unknown name nope at line 2, column 2 of the expression`}},
		{"types", []config.Rule{when(`size == "big"`, drop)}, []string{`rules[0].when: invalid operation: == (mismatched types int and string) at column 6 of the expression`}},
		{"no condition", []config.Rule{when(`size + 1`, drop)}, []string{`rules[0].when: expected bool, but got int`}},
		{"empty", []config.Rule{drop}, []string{`rules[0].when: `}},
		{"syntax", []config.Rule{when(`from ==`, drop)}, []string{`rules[0].when: unexpected token EOF at column 7 of the expression`}},
		{"the environment itself", []config.Rule{when(`$env.text == "x"`, drop)}, []string{`rules[0].when: unknown name $env at column 1`}},
		{"redeclared name", []config.Rule{when(`let json = 1; json == 1`, drop)}, []string{`rules[0].when: cannot redeclare json`}},
		{"too long", []config.Rule{when(long, drop)}, []string{`rules[0].when: compilation failed`}},
		{"bad pattern", []config.Rule{when(`text matches "("`, drop)}, []string{`rules[0].when: error parsing regexp`}},
		{"no result", []config.Rule{when("true", config.Rule{})}, []string{`rules[0]: a rule needs a result: `}},
		{"two results", []config.Rule{when("true", config.Rule{Drop: true, ReplyText: ptr("x")})}, []string{`rules[0].drop: a rule has one result, this one has reply_text too`}},
		{"bad reply", []config.Rule{when("true", config.Rule{ReplyExpr: "txt"})}, []string{`rules[0].reply_expr: unknown name txt at column 1 of the expression; did you mean "text"?`}},
		{"all at once", []config.Rule{when("a", drop), when("true", drop), when("b", config.Rule{ForwardExpr: "c"})},
			[]string{"rules[0].when: unknown name a", "rules[2].when: unknown name b", "rules[2].forward_expr: unknown name c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := compile(tt.rules)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %d lines, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
		})
	}
}

// Phoenix messages have a topic and an event, whatever their form.
func TestChannelNames(t *testing.T) {
	p, err := compile(config.RulesHandler{{When: `topic startsWith "room:" && event == "new_msg"`, Drop: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from relay.Side
		data string
		want relay.Verdict
	}{
		{relay.Client, `["1","2","room:a","new_msg",{}]`, relay.Drop},
		{relay.Client, `{"topic":"room:a","event":"new_msg","payload":{},"ref":"1"}`, relay.Drop},
		{relay.Client, "\x00\x01\x01\x06\x0712room:anew_msg", relay.Drop},
		{relay.Upstream, "\x02\x06\x07room:anew_msg", relay.Drop},
		{relay.Client, `["1","2","lobby","new_msg",{}]`, relay.OK},
		{relay.Client, `room:a new_msg`, relay.OK},
	} {
		got := p.decide(&subject{session: fakeSession{}}, message{from: tt.from, kind: frame.Text, data: []byte(tt.data)}).Verdict
		if got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.data, got, tt.want)
		}
	}
}
