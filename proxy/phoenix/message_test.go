package phoenix

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// show writes a message in one line.
func show(m Message) string {
	var b strings.Builder
	for _, field := range [][]byte{m.JoinRef, m.Ref} {
		if field == nil {
			b.WriteString("- ")
		} else {
			b.WriteString(string(field) + " ")
		}
	}
	b.WriteString(string(m.Topic) + " " + string(m.Event) + " " + string(m.Payload))
	if m.Binary {
		b.WriteString(" binary")
	}
	if m.Status != nil {
		b.WriteString(" status=" + string(m.Status))
	}
	return b.String()
}

const (
	malformed = "malformed"
	other     = "something else" // the lengths mean other fields
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, data           string
		fromClient, fromHost string // the latter where it differs
	}{
		{name: "version 2", data: `["1","2","room:a","new_msg",{"body":"[\"]}"}]`,
			fromClient: `"1" "2" room:a new_msg {"body":"[\"]}"}`},
		{name: "without refs", data: `[null,null,"phoenix","heartbeat",{}]`,
			fromClient: `- - phoenix heartbeat {}`},
		{name: "numbers as refs", data: `[1,2,"t","e",null]`, fromClient: `1 2 t e null`},
		{name: "more than five", data: `[null,"1","t","e",{},{"more":[]},1]`, fromClient: `- "1" t e {}`},
		{name: "spaces", data: " \n[ null ,\t\"1\", \"t\" ,\"e\" , [ 1 , 2 ] ] ", fromClient: `- "1" t e [ 1 , 2 ]`},
		{name: "escapes", data: `["\u0031","2","ro\u006fm:\"a\"","ph\u0078_join",{}]`,
			fromClient: `"1" "2" room:"a" phx_join {}`},
		{name: "refs that are no strings", data: `[{"a":"\n"},["\u0031"],"t","e",{}]`,
			fromClient: `{"a":"\n"} ["\u0031"] t e {}`},
		{name: "a ref that can't be read", data: `[null,"\0","t","e",{}]`, fromClient: `- "\0" t e {}`},
		{name: "an event that is no string", data: `[null,null,"t",7,{}]`, fromClient: `- - t 7 {}`},
		{name: "version 1", data: `{"topic":"t","event":"e","payload":{"a":{"topic":"no"}},"ref":"1"}`,
			fromClient: `- "1" t e {"a":{"topic":"no"}}`},
		{name: "version 1 with all", data: ` { "join_ref" : 3 , "more":[1,{}],"ref":null,"event":"e","topic":"t","payload":"p"}`,
			fromClient: `3 - t e "p"`},
		{name: "a topic twice", data: `{"topic":"first","event":"e","payload":{},"ref":"1","t\u006fpic":"last"}`, fromClient: malformed},
		{name: "an event twice", data: `{"topic":"t","event":"e","event":"e","payload":{},"ref":"1"}`, fromClient: malformed},
		{name: "a payload twice", data: `{"topic":"t","event":"e","payload":{},"payload":{},"ref":"1"}`, fromClient: malformed},
		{name: "a ref twice", data: `{"topic":"t","event":"e","payload":{},"ref":null,"ref":"1"}`, fromClient: malformed},
		{name: "a join_ref twice", data: `{"join_ref":null,"topic":"t","event":"e","payload":{},"ref":"1","join_ref":"1"}`, fromClient: malformed},
		{name: "another key twice", data: `{"a":1,"topic":"t","event":"e","payload":{},"ref":"1","a":2}`,
			fromClient: `- "1" t e {}`},
		{name: "keys in another case", data: `{"Topic":"t","event":"e","payload":{},"ref":"1"}`, fromClient: malformed},
		{name: "four", data: `[null,null,"t","e"]`, fromClient: malformed},
		{name: "unfinished", data: `[null,null,"t","e",{}`, fromClient: malformed},
		{name: "unfinished string", data: `[null,null,"t","e`, fromClient: malformed},
		{name: "no payload", data: `{"topic":"t","event":"e"}`, fromClient: malformed},
		{name: "a string", data: `"t"`, fromClient: malformed},
		{name: "nothing", data: ``, fromClient: malformed},
		// As Phoenix's own tests have them.
		{name: "push", data: "\x00\x02\x03\x05\x0512123topiceventpayload",
			fromClient: `"12" "123" topic event payload binary`, fromHost: other},
		{name: "push of a server", data: "\x00\x02\x05\x0512topicevent\x65\xcc\xfe",
			fromClient: malformed, fromHost: "\"12\" - topic event \x65\xcc\xfe binary"},
		{name: "reply", data: "\x01\x02\x03\x05\x0212123topicokpayload",
			fromClient: malformed, fromHost: `"12" "123" topic phx_reply payload binary status=ok`},
		{name: "broadcast", data: "\x02\x05\x05topiceventpayload",
			fromClient: malformed, fromHost: `- - topic event payload binary`},
		{name: "push without refs", data: "\x00\x00\x00\x01\x01te", fromClient: `- - t e  binary`, fromHost: other},
		{name: "cut short", data: "\x00\x02\x03\x05\x0512123topiceven", fromClient: malformed, fromHost: other},
		{name: "sizes alone", data: "\x02\x05", fromClient: malformed, fromHost: malformed},
		{name: "another kind", data: "\x03\x01\x01te", fromClient: malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.fromHost == "" {
				tt.fromHost = tt.fromClient
			}
			for _, side := range []struct {
				name   string
				decode func([]byte) (Message, error)
				want   string
			}{{"client", FromClient, tt.fromClient}, {"server", FromServer, tt.fromHost}} {
				m, err := side.decode([]byte(tt.data))
				got := show(m)
				if err != nil {
					got = malformed
				}
				if side.want != other && got != side.want {
					t.Errorf("from a %s: got %s, want %s", side.name, got, side.want)
				}
			}
		})
	}
}

func TestReplyStatus(t *testing.T) {
	for data, want := range map[string]string{
		`["1","1","t","phx_reply",{"status":"ok","response":{}}]`:                 "ok",
		`["1","1","t","phx_reply",{"response":{"status":"no"},"status":"error"}]`: "error",
		`["1","1","t","phx_reply",{"Status":"ok"}]`:                               "",
		`["1","1","t","phx_reply",{"status":"error","status":"ok"}]`:              "ok",
		`["1","1","t","other",{"status":"ok"}]`:                                   "",
		"\x01\x01\x01\x01\x0211tokpayload":                                        "ok",
	} {
		m, err := FromServer([]byte(data))
		if got := m.ReplyStatus(); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", data, got, err, want)
		}
	}
}

func TestAppend(t *testing.T) {
	m := &Message{JoinRef: []byte(`"12"`), Ref: []byte(`"123"`), Topic: []byte("topic"), Event: []byte("event"), Payload: []byte("payload"), Status: []byte("ok")}
	for _, tt := range []struct {
		name string
		make func([]byte, *Message) ([]byte, error)
		want string
	}{
		{"client's push", AppendClientPush, "\x00\x02\x03\x05\x0512123topiceventpayload"},
		{"push", AppendPush, "\x00\x02\x05\x0512topiceventpayload"},
		{"reply", AppendReply, "\x01\x02\x03\x05\x0212123topicokpayload"},
		{"broadcast", AppendBroadcast, "\x02\x05\x05topiceventpayload"},
	} {
		got, err := tt.make([]byte(">"), m)
		if string(got) != ">"+tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
		long := *m
		long.Topic = bytes.Repeat([]byte("t"), 256)
		if got, err := tt.make(nil, &long); err == nil {
			t.Errorf("%s: a topic of 256 bytes was written: %q", tt.name, got)
		}
	}
	for _, tt := range []struct {
		version Version
		message Message
		want    string
	}{
		{V2, Message{Topic: []byte("t"), Event: []byte("e"), Payload: []byte("{}")}, `[null,null,"t","e",{}]`},
		{V2, Message{JoinRef: []byte("1"), Ref: []byte(`"2"`), Topic: []byte(`a"b` + "\n"), Event: []byte("é"), Payload: []byte("{}")}, `[1,"2","a\"b\n","é",{}]`},
		{V1, Message{JoinRef: []byte("1"), Ref: []byte(`"2"`), Topic: []byte("t"), Event: []byte("e"), Payload: []byte("{}")}, `{"topic":"t","event":"e","payload":{},"ref":"2"}`},
	} {
		if got := string(AppendText(nil, tt.version, &tt.message)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestVersionOf(t *testing.T) {
	for query, want := range map[string]Version{
		"":                         V1,
		"vsn=1.0.0":                V1,
		"vsn=2.0.0":                V2,
		"token=a%3Db&vsn=2.0.0&x":  V2,
		"vsn=1.0.0&vsn=2.0.0":      V2,
		"vsn=2.0.0&v%73n=1.0.0":    V1,
		"vsn=%zz":                  V1,
		"a;vsn=2.0.0":              V1,
		"vsn=20.0.0":               V1,
		"token=x%zz&vsn=%32%2e0.0": V2,
	} {
		if got := VersionOf(query); got != want {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
}

// Looking at a message takes no memory of its own.
func TestDecodeAllocatesNothing(t *testing.T) {
	for _, data := range []string{
		`["1","2","room:a","new_msg",{"body":"hello"}]`,
		`{"topic":"room:a","event":"new_msg","payload":{"body":"hello"},"ref":"2"}`,
		"\x02\x05\x05topiceventpayload",
	} {
		b := []byte(data)
		if n := testing.AllocsPerRun(100, func() { FromServer(b) }); n != 0 {
			t.Errorf("%q: %v allocations", data, n)
		}
	}
}

// What a JSON parser understands is understood in the same way.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`["1","2","room:a","new_msg",{"body":"x"}]`, ` [null,1,"\u0041","\"",[{"a":"]"}],5]`,
		`{"topic":"t","event":"e","payload":{},"ref":"1","join_ref":null,"topic":"u"}`,
		`{"topic":"t","event":"e","payload":{},"ref":null,"r\u0065f":1}`, `{"a":0,"topic":"t","event":"e","payload":{},"a":1}`,
		"\x00\x02\x03\x05\x0512123topiceventpayload", "\x01\x02\x03\x05\x0212123topicok", "\x02\x01\x01te",
		`[[[[`, `{"`, `[null,null,"t","e",{}`, "[0,\"\xff\\0\",0,0,0]", `[0,{"a":"\n"},0,0,0]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, decode := range []func([]byte) (Message, error){FromClient, FromServer} {
			m, err := decode(data)
			if err == nil && (m.Topic == nil || m.Event == nil) {
				t.Fatalf("%q has no topic or event", data)
			}
			checkAgainstJSON(t, data, m, err)
			if err == nil && !m.Binary {
				checkRoundTrip(t, &m)
			}
		}
	})
}

func checkAgainstJSON(t *testing.T, data []byte, m Message, err error) {
	t.Helper()
	var list []json.RawMessage
	var object map[string]json.RawMessage
	var topic, event json.RawMessage
	switch {
	case json.Unmarshal(data, &list) == nil && len(list) >= 5:
		topic, event = list[2], list[3]
	case json.Unmarshal(data, &object) == nil && object["topic"] != nil && object["event"] != nil && object["payload"] != nil:
		topic, event = object["topic"], object["event"]
	default:
		return
	}
	if err != nil {
		if object != nil && repeats(data) {
			return
		}
		t.Fatalf("%q: %v", data, err)
	}
	if object != nil && repeats(data) {
		t.Fatalf("%q has a key twice", data)
	}
	for _, part := range []struct{ got, want []byte }{{m.Topic, topic}, {m.Event, event}} {
		var s string
		if json.Unmarshal(part.want, &s) != nil || string(part.want) == "null" {
			continue
		}
		if !bytes.Equal(part.got, []byte(s)) && strings.ToValidUTF8(string(part.got), "") == string(part.got) {
			t.Fatalf("%q: got %q, want %q", data, part.got, s)
		}
	}
}

// repeats reports whether a JSON object has one of a message's keys twice.
func repeats(object []byte) bool {
	from := json.NewDecoder(bytes.NewReader(object))
	from.Token() // the brace
	seen := make(map[json.Token]bool)
	for from.More() {
		key, err := from.Token()
		var value json.RawMessage
		if err != nil || from.Decode(&value) != nil {
			return false
		}
		if seen[key] && slices.Contains([]json.Token{"topic", "event", "payload", "ref", "join_ref"}, key) {
			return true
		}
		seen[key] = true
	}
	return false
}

// checkRoundTrip writes what was read, where it was JSON.
func checkRoundTrip(t *testing.T, m *Message) {
	t.Helper()
	for _, value := range [][]byte{m.JoinRef, m.Ref, m.Payload} {
		if value != nil && !json.Valid(value) {
			return
		}
	}
	again, err := FromClient(AppendText(nil, V2, m))
	if err != nil || !sameRef(again.Ref, m.Ref) || !bytes.Equal(again.Payload, m.Payload) {
		t.Fatalf("%s became %s, %v", show(*m), show(again), err)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := []byte(`["1","2","room:a","new_msg",{"body":"` + strings.Repeat("hello ", 40) + `"}]`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		FromClient(data)
	}
}
