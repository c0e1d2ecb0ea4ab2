package rules

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/frame"
	"github.com/stentproxy/stent/proxy/relay"
)

// FuzzRules feeds expressions and messages: an expression is refused at load
// or runs without a panic, text that goes out is UTF-8, and a second run of
// the same message has the same verdict.
func FuzzRules(f *testing.F) {
	for _, when := range []string{
		`true`, `from == "client" && json?.op == "ping"`, `size > 4096`, `text contains "secret"`,
		`any(json, # == 1)`, `let x = json?.a?.b; x != nil && x[0] == "c"`, `text matches json.pattern`,
		`headers["origin"] startsWith "https" || claims?.admin == true`, `reduce(json, #acc + #, 0) > 3`,
		`sortBy(json, #) == json`, `type in ["text"] and not (id == "")`,
	} {
		for _, message := range []string{``, `hello`, `{"op":"ping"}`, `[1,2.5,"x",null,[{}]]`, `{"a":{"b":["c"]},"pattern":"("}`, "\xff"} {
			f.Add(when, `{"re": json, "was": text}`, message, true)
		}
	}
	f.Fuzz(func(t *testing.T, condition, reply, data string, asText bool) {
		p, err := compile([]config.Rule{{When: condition, ReplyExpr: reply}})
		if err != nil {
			return
		}
		m := message{from: relay.Client, kind: frame.Binary, data: []byte(data)}
		if asText && utf8.ValidString(data) {
			m.kind = frame.Text
		}
		s := &subject{session: fakeSession{}}
		got := p.decide(s, m)
		if got.Type == frame.Text && !utf8.Valid(got.Data) {
			t.Errorf("text that is not UTF-8: %q", got.Data)
		}
		if again := p.decide(s, m); again.Verdict != got.Verdict && !strings.Contains(condition+reply, "now") {
			t.Errorf("%+v then %+v for the same message", got, again)
		}
		if string(m.data) != data {
			t.Errorf("the message was changed: %q to %q", data, m.data)
		}
	})
}
