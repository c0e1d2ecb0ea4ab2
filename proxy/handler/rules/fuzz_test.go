package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
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

// FuzzDecode feeds texts: what is decoded is what encoding/json makes of it,
// and what is not is no JSON, or has equal keys, or is too deep.
func FuzzDecode(f *testing.F) {
	for _, data := range []string{
		``, ` `, `"`, `{`, `7`, `-0`, `1e999`, `"a:b,[{"`, `[1,2.5,"x",null,[{}]]`, `{"a":{"b":["c\"]"]},"c":"\\"}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[{"a":1},{"a":1}]`, `{"a":{"b":1,"b":1},"a":0}`, `{} {}`, `[]]`, `{"a"::1}`, "[\"\\",
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat(`{"":`, maxDepth+1),
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := decode(data)
		valid := json.Valid(data)
		switch {
		case err == nil && !valid:
			t.Errorf("%q is no JSON", data)
		case err == nil && hasEqualKeys(data):
			t.Errorf("%q has equal keys", data)
		case err == nil:
			var want, got any
			if json.Unmarshal(data, &want) != nil {
				return // a number beyond float64
			}
			b, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q became %s (%v)", data, b, err)
			}
		case errors.Is(err, errEqualKeys) && !hasEqualKeys(data):
			t.Errorf("%q has no equal keys", data)
		case !errors.Is(err, errTooComplex) && valid:
			t.Errorf("%q: %v", data, err)
		}
	})
}

// hasEqualKeys says whether an object in a JSON text has a key twice.
func hasEqualKeys(data []byte) bool {
	from := json.NewDecoder(bytes.NewReader(data))
	var keys []map[string]bool // of the objects around; nil of a list
	isKey := false
	for {
		token, err := from.Token()
		if err != nil {
			return false
		}
		switch token {
		case json.Delim('{'):
			keys = append(keys, make(map[string]bool))
			isKey = true
			continue
		case json.Delim('['):
			keys = append(keys, nil)
			isKey = false
			continue
		case json.Delim(']'), json.Delim('}'):
			keys = keys[:len(keys)-1]
		default:
			if key, ok := token.(string); ok && isKey {
				inner := keys[len(keys)-1]
				if inner[key] {
					return true
				}
				inner[key] = true
				isKey = false
				continue
			}
		}
		isKey = len(keys) > 0 && keys[len(keys)-1] != nil // behind a value
	}
}
