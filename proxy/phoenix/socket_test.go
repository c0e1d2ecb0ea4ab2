package phoenix

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// script plays messages to a Socket and notes what it does. A line is
//
//	> MESSAGE   of the client, which passes and is handed over
//	~ MESSAGE   of the client, which passes and stays in the hold
//	< MESSAGE   of the server
//	lost, replay
//	handed      the hold, to a server
//
// Messages are JOINREF REF TOPIC EVENT [STATUS], as version 2 has them.
type script struct {
	t      *testing.T
	socket *Socket
	now    time.Time
	hold   [][]byte
}

func array(line string) []byte {
	f := strings.Fields(line)
	ref := func(s string) string {
		if s == "-" {
			return "null"
		}
		return `"` + s + `"`
	}
	payload := `{}`
	if len(f) > 4 {
		payload = fmt.Sprintf(`{"status":%q,"response":{}}`, f[4])
	}
	return fmt.Appendf(nil, `[%s,%s,%q,%q,%s]`, ref(f[0]), ref(f[1]), f[2], f[3], payload)
}

// brief is a message of a Socket as scripts have it.
func brief(data []byte) string {
	m, err := FromServer(data)
	if err != nil {
		return "malformed"
	}
	ref := func(b []byte) string {
		if b == nil {
			return "-"
		}
		return string(bare(b))
	}
	s := strings.Join([]string{ref(m.JoinRef), ref(m.Ref), string(m.Topic), string(m.Event)}, " ")
	if status := m.ReplyStatus(); status != "" {
		s += " " + status
		if _, reason, ok := strings.Cut(string(m.Payload), `"reason":"`); ok {
			s += " " + strings.TrimSuffix(reason, `"}}`)
		}
	}
	return s
}

func (s *script) play(line string) string {
	s.t.Helper()
	say := func(a Action) string {
		switch {
		case a.Answer != nil:
			return "answer " + brief(a.Answer)
		case a.Instead != nil:
			return "instead " + brief(a.Instead)
		case a.Drop:
			return "drop"
		}
		return "pass"
	}
	kind, message, _ := strings.Cut(line, " ")
	switch kind {
	case ">", "~":
		data := array(message)
		a, err := s.socket.FromClient(false, data, s.now)
		if err != nil {
			return err.Error()
		}
		switch {
		case a.Drop:
		case kind == ">":
			s.socket.HandedOver(data)
		default:
			s.hold = append(s.hold, data)
		}
		return say(a)
	case "handed":
		out := list(s.hold)
		for _, data := range s.hold {
			s.socket.HandedOver(data)
		}
		s.hold = nil
		return out
	case "<":
		return say(s.socket.FromServer(array(message)))
	case "lost":
		return list(s.socket.Lost())
	case "replay":
		again, tell := s.socket.Replay()
		var messages [][]byte
		for _, r := range again {
			messages = append(messages, r.Data)
		}
		out := list(messages)
		if len(tell) > 0 {
			out += " | " + list(tell)
		}
		return out
	case "wait":
		d, err := time.ParseDuration(message)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
		return ""
	case "topics":
		return strings.Join(s.socket.Topics(), " ")
	}
	s.t.Fatalf("no such line: %s", line)
	return ""
}

func list(messages [][]byte) string {
	var all []string
	for _, m := range messages {
		all = append(all, brief(m))
	}
	return strings.Join(all, ", ")
}

// joinedAB has the client join two topics.
var joinedAB = [][2]string{
	{"> 1 1 room:a phx_join", "pass"}, {"< 1 1 room:a phx_reply ok", "pass"},
	{"> 2 2 room:b phx_join", "pass"}, {"< 2 2 room:b phx_reply ok", "pass"},
}

func TestSocket(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rejoin bool
		keep   int
		before [][2]string
		lines  [][2]string
	}{
		{name: "told once", before: joinedAB, lines: [][2]string{
			{"topics", "room:a room:b"},
			{"lost", "1 1 room:a phx_error, 2 2 room:b phx_error"},
			{"lost", ""},
			{"replay", ""},
			{"topics", ""},
		}},
		{name: "joins while held are sent once, the last of each topic", before: joinedAB, lines: [][2]string{
			{"lost", "1 1 room:a phx_error, 2 2 room:b phx_error"},
			{"> 3 3 room:a phx_join", "drop"},
			{"> 4 4 room:b phx_join", "drop"},
			{"> 3 5 room:a phx_leave", "answer 3 5 room:a phx_reply ok"}, // its patience has ended
			{"> 6 6 room:a phx_join", "drop"},
			{"replay", "4 4 room:b phx_join, 6 6 room:a phx_join"},
			{"< 6 6 room:a phx_reply ok", "pass"},
			{"< 4 4 room:b phx_reply error", "pass"},
			{"topics", "room:a"},
		}},
		{name: "repeated unseen", rejoin: true, before: joinedAB, lines: [][2]string{
			{"lost", ""},
			{"> 1 3 room:a new_msg", "pass"},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"< 1 1 room:a phx_reply ok", "drop"},
			{"< 2 2 room:b phx_reply ok", "drop"},
			{"< 2 2 room:b phx_reply ok", "pass"}, // nobody's
			{"lost", ""},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"lost", ""},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"< 1 1 room:a phx_reply ok", "drop"},
			{"topics", "room:a room:b"},
		}},
		{name: "repeated and refused", rejoin: true, before: joinedAB, lines: [][2]string{
			{"lost", ""},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"< 1 1 room:a phx_reply error", "instead 1 1 room:a phx_error"},
			{"< 2 2 room:b phx_close", "pass"},
			{"topics", ""},
			{"lost", ""},
		}},
		{name: "too much to keep", rejoin: true, keep: len(array("1 1 room:a phx_join")), before: joinedAB, lines: [][2]string{
			{"lost", "2 2 room:b phx_error"},
			{"~ 3 3 room:b phx_join", "pass"}, // into the hold
			{"replay", "1 1 room:a phx_join"},
			{"< 3 3 room:b phx_reply ok", "pass"},
		}},
		{name: "unanswered join", before: [][2]string{{"> 1 1 room:a phx_join", "pass"}}, lines: [][2]string{
			{"lost", ""},
			{"replay", "1 1 room:a phx_join"},
			{"< 1 1 room:a phx_reply ok", "pass"},
		}},
		{name: "join in the hold", before: [][2]string{{"~ 1 1 room:a phx_join", "pass"}}, lines: [][2]string{
			{"lost", ""},
			{"replay", ""},
			{"< 1 1 room:a phx_reply ok", "pass"},
			{"topics", "room:a"},
		}},
		{name: "join in the hold that is given up", before: [][2]string{{"~ 1 1 room:a phx_join", "pass"}}, lines: [][2]string{
			{"lost", ""},
			{"~ 1 2 room:a phx_leave", "pass"},
			{"~ 3 3 room:a phx_join", "pass"}, // not ahead of them
			{"~ 3 4 room:a phx_leave", "pass"},
			{"~ 5 5 room:a phx_join", "pass"},
			{"~ 6 6 room:b phx_join", "drop"}, // another topic may wait
			{"replay", "6 6 room:b phx_join"},
			{"handed", "1 1 room:a phx_join, 1 2 room:a phx_leave, 3 3 room:a phx_join, 3 4 room:a phx_leave, 5 5 room:a phx_join"},
			{"< 1 1 room:a phx_reply ok", "pass"}, // the client drops what is outdated
			{"< 1 1 room:a phx_close", "pass"},
			{"< 5 5 room:a phx_reply ok", "pass"},
			{"topics", "room:a"},
			{"lost", "5 5 room:a phx_error"},
			{"~ 7 7 room:a phx_join", "drop"}, // the hold is empty again
			{"replay", "6 6 room:b phx_join, 7 7 room:a phx_join"},
		}},
		{name: "unanswered join that is given up", before: [][2]string{{"> 1 1 room:a phx_join", "pass"}}, lines: [][2]string{
			{"lost", ""},
			{"~ 1 2 room:a phx_leave", "answer 1 2 room:a phx_reply ok"},
			{"~ 3 3 room:a phx_join", "drop"},
			{"replay", "3 3 room:a phx_join"},
			{"handed", ""},
		}},
		{name: "unanswered join that is given up before the loss is known", before: [][2]string{{"> 1 1 room:a phx_join", "pass"}}, lines: [][2]string{
			{"~ 1 2 room:a phx_leave", "pass"},
			{"lost", ""},
			{"~ 3 3 room:a phx_join", "pass"},
			{"replay", ""},
			{"handed", "1 2 room:a phx_leave, 3 3 room:a phx_join"},
		}},
		{name: "left and joined again without join_ref", before: [][2]string{
			{"> - 1 room:a phx_join", "pass"}, {"< - 1 room:a phx_reply ok", "pass"},
		}, lines: [][2]string{
			{"lost", "- - room:a phx_error"},
			{"~ - 2 room:a phx_leave", "answer - 2 room:a phx_reply ok"}, // no server knows of it
			{"~ - 3 room:a phx_join", "drop"},
			{"replay", "- 3 room:a phx_join"},
			{"handed", ""},
		}},
		{name: "left and joined again without join_ref, repeated", rejoin: true, before: [][2]string{
			{"> - 1 room:a phx_join", "pass"}, {"< - 1 room:a phx_reply ok", "pass"},
		}, lines: [][2]string{
			{"lost", ""},
			{"~ - 2 room:a phx_leave", "pass"},
			{"~ - 3 room:a phx_join", "pass"},
			{"replay", ""},
			{"handed", "- 2 room:a phx_leave, - 3 room:a phx_join"},
			{"< - 2 room:a phx_reply ok", "pass"},
			{"< - 3 room:a phx_reply ok", "pass"},
			{"topics", "room:a"},
		}},
		{name: "left without join_ref before the loss is known, and joined again", before: [][2]string{
			{"> - 1 room:a phx_join", "pass"}, {"< - 1 room:a phx_reply ok", "pass"},
		}, lines: [][2]string{
			{"~ - 2 room:a phx_leave", "pass"},
			{"lost", ""},
			{"~ - 3 room:a phx_join", "pass"},
			{"replay", ""},
			{"handed", "- 2 room:a phx_leave, - 3 room:a phx_join"},
			{"< - 3 room:a phx_reply ok", "pass"},
			{"topics", "room:a"},
		}},
		{name: "closed and in error", rejoin: true, before: joinedAB, lines: [][2]string{
			{"< 1 1 room:a phx_close", "pass"},
			{"< 2 2 room:b phx_error", "pass"},
			{"lost", ""},
			{"replay", ""},
		}},
		{name: "stale close and error", rejoin: true, before: joinedAB, lines: [][2]string{
			{"> 3 3 room:a phx_join", "pass"}, // again
			{"< 3 3 room:a phx_reply ok", "pass"},
			{"< 1 1 room:a phx_close", "pass"}, // of the join before
			{"> 1 4 room:b phx_leave", "pass"}, // of no join
			{"lost", ""},
			{"replay", "2 2 room:b phx_join, 3 3 room:a phx_join"},
		}},
		{name: "left", rejoin: true, before: joinedAB, lines: [][2]string{
			{"> 1 3 room:a phx_leave", "pass"},
			{"< 1 3 room:a phx_reply ok", "pass"},
			{"< 1 1 room:a phx_close", "pass"},
			{"lost", ""},
			{"replay", "2 2 room:b phx_join"},
		}},
		{name: "leave that was lost", before: joinedAB, lines: [][2]string{
			{"> 1 3 room:a phx_leave", "pass"},
			{"lost", "1 3 room:a phx_reply ok, 1 1 room:a phx_close, 2 2 room:b phx_error"},
		}},
		{name: "leave while held, behind a push", rejoin: true, before: joinedAB, lines: [][2]string{
			{"lost", ""},
			{"~ 1 3 room:a new_msg", "pass"},
			{"~ 1 4 room:a phx_leave", "pass"},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"< 1 1 room:a phx_reply ok", "drop"},
			{"< 1 4 room:a phx_reply ok", "pass"},
			{"topics", "room:b"},
		}},
		{name: "leave in the hold of a channel that is not repeated", before: joinedAB, lines: [][2]string{
			{"~ 1 3 room:a phx_leave", "pass"},
			{"lost", "2 2 room:b phx_error"},
			{"replay", ""},
		}},
		{name: "heartbeats", lines: [][2]string{
			{"> - 1 phoenix heartbeat", "pass"},
			{"< - 1 phoenix phx_reply ok", "pass"},
			{"> - 2 phoenix heartbeat", "pass"},
			{"lost", "- 2 phoenix phx_reply ok"},
			{"> - 3 phoenix heartbeat", "answer - 3 phoenix phx_reply ok"},
			{"replay", ""},
			{"< - 2 phoenix phx_reply ok", "drop"}, // it was in the hold
			{"> - 4 phoenix heartbeat", "pass"},
			{"< - 4 phoenix phx_reply ok", "pass"},
		}},
		{name: "a further join while a repeated one is unanswered", rejoin: true, before: joinedAB, lines: [][2]string{
			{"lost", ""},
			{"replay", "1 1 room:a phx_join, 2 2 room:b phx_join"},
			{"> 3 3 room:a phx_join", "pass"},
			{"< 1 1 room:a phx_reply ok", "pass"}, // the client drops what is outdated
			{"< 3 3 room:a phx_reply ok", "pass"},
			{"< 1 1 room:a phx_close", "pass"},
			{"topics", "room:b room:a"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keep := tt.keep
			if keep == 0 {
				keep = 1000
			}
			s := &script{t: t, socket: NewSocket(Options{Version: V2, Rejoin: tt.rejoin, Keep: keep})}
			for i, line := range slices.Concat(tt.before, tt.lines) {
				if got := s.play(line[0]); got != line[1] {
					t.Fatalf("line %d, %s: got %q, want %q", i, line[0], got, line[1])
				}
			}
			if err := s.socket.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// check says what does not add up.
func (s *Socket) check() error {
	kept := 0
	for _, ch := range s.channels {
		kept += len(ch.join)
		if s.byTopic[ch.topic] != ch {
			return fmt.Errorf("%s is not in the map", ch.topic)
		}
	}
	if kept != s.kept || len(s.byTopic) != len(s.channels) {
		return fmt.Errorf("%d bytes are kept, %d counted; %d channels, %d in the map", kept, s.kept, len(s.channels), len(s.byTopic))
	}
	return nil
}

func TestTopicRules(t *testing.T) {
	rules := []config.Topic{
		{Match: "room:lobby", Allow: true, JoinsPerSecond: 2},
		{Match: "room:secret"},
		{Match: "room:*", Allow: true},
		{Match: "user:*", Allow: true, Claim: "sub={*}"},
		{Match: "staff", Allow: true, Claim: "admin"},
		{Match: "team:*", Allow: true, Claim: "teams={*}"},
		{Match: "number:*", Allow: true, Claim: "n={*}"},
	}
	claims := map[string]any{"sub": "42", "admin": false, "teams": []any{"red", float64(7)}, "n": float64(1234567)}
	denied := func(topic string) string { return "answer 1 1 " + topic + " phx_reply error unauthorized" }
	for topic, want := range map[string]string{
		"room:a":         "pass",
		"room:":          "pass",
		"room:secret":    denied("room:secret"),
		"room":           denied("room"),
		"other":          denied("other"),
		"user:42":        "pass",
		"user:43":        denied("user:43"),
		"user:":          denied("user:"),
		"staff":          denied("staff"),
		"team:red":       "pass",
		"team:7":         "pass",
		"team:blue":      denied("team:blue"),
		"number:1234567": "pass",
	} {
		s := &script{t: t, socket: NewSocket(Options{Version: V2, Rules: rules, Claims: func() map[string]any { return claims }})}
		if got := s.play("> 1 1 " + topic + " phx_join"); got != want {
			t.Errorf("%s: got %s, want %s", topic, got, want)
		}
	}
	s := &script{t: t, socket: NewSocket(Options{Version: V2, Rules: rules}), now: time.Unix(1, 0)}
	for i, line := range [][2]string{
		{"> 1 1 room:lobby phx_join", "pass"},
		{"> 2 2 room:lobby phx_join", "pass"},
		{"> 3 3 room:lobby phx_join", "answer 3 3 room:lobby phx_reply error rate limited"},
		{"> 4 4 room:a phx_join", "pass"},
		{"wait 500ms", ""},
		{"> 5 5 room:lobby phx_join", "pass"},
		{"> 6 6 user:42 phx_join", "answer 6 6 user:42 phx_reply error unauthorized"}, // without claims
		{"> 7 7 other new_msg", "pass"},
		{"lost", "4 4 room:a phx_error, 5 5 room:lobby phx_error"},
		{"> 8 8 room:secret phx_join", "answer 8 8 room:secret phx_reply error unauthorized"}, // while held, too
	} {
		if got := s.play(line[0]); got != line[1] {
			t.Fatalf("line %d, %s: got %q, want %q", i, line[0], got, line[1])
		}
	}
}

// No shape of a join gets past a rule.
func TestRulesSeeEveryShape(t *testing.T) {
	for _, join := range []string{
		`["1","1","room:a","phx_join",{}]`,
		`[1,1,"ro\u006fm:a","phx\u005fjoin",{},0]`,
		`{"event":"phx_join","topic":"room:a","payload":{},"ref":"1"}`,
		"\x00\x01\x01\x06\x0811room:aphx_join{}",
	} {
		s := NewSocket(Options{Rules: []config.Topic{{Match: "lobby", Allow: true}}})
		a, err := s.FromClient(true, []byte(join), time.Time{})
		if !a.Drop || err != nil {
			t.Errorf("%q passes: %+v, %v", join, a, err)
		}
	}
	s := NewSocket(Options{Rules: []config.Topic{{Match: "*", Allow: true}}})
	for _, join := range []string{
		`["1","1","room:a"`,
		// Phoenix takes the first of a key that comes twice.
		`{"topic":"room:a","topic":"lobby","event":"phx_join","payload":{},"ref":"1"}`,
		`{"topic":"lobby","t\u006fpic":"room:a","event":"phx_join","payload":{},"ref":"1"}`,
		`{"topic":"room:a","event":"phx_join","event":"x","payload":{},"ref":"1"}`,
	} {
		if _, err := s.FromClient(false, []byte(join), time.Time{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want it to be malformed", join, err)
		}
	}
}

// A client can't make a Socket remember without bound.
func TestSocketIsBounded(t *testing.T) {
	s := NewSocket(Options{Version: V2, Rejoin: true, Keep: 500})
	for i := range 2 * maxChannels {
		data := array(fmt.Sprintf("%d %d topic:%d phx_join", i, i, i))
		a, err := s.FromClient(false, data, time.Time{})
		if err != nil || a.Drop != (i >= maxChannels) {
			t.Fatalf("join %d: %+v, %v", i, a, err)
		}
		s.FromClient(false, array(fmt.Sprintf("- %d phoenix heartbeat", i)), time.Time{})
		s.FromClient(false, array(fmt.Sprintf("- %d other:%d phx_leave", i, i)), time.Time{})
		s.Lost()
		s.Replay()
	}
	if len(s.ahead.byTopic) > maxChannels || !s.ahead.of("topic:more") {
		t.Errorf("%d topics are ahead, and those beyond them are not known", len(s.ahead.byTopic))
	}
	if len(s.channels) != maxChannels || s.kept > 500 || len(s.beats)+len(s.answered) > 2*maxBeats {
		t.Errorf("%d channels, %d bytes, %d heartbeats", len(s.channels), s.kept, len(s.beats)+len(s.answered))
	}
	for i := range 2 * maxChannels {
		if i < maxChannels {
			s.HandedOver(array(fmt.Sprintf("%d %d topic:%d phx_join", i, i, i)))
		}
		s.HandedOver(array(fmt.Sprintf("- %d other:%d phx_leave", i, i)))
	}
	if len(s.ahead.byTopic) != 0 || s.ahead.others != 0 {
		t.Errorf("%d topics and %d others are ahead, want none", len(s.ahead.byTopic), s.ahead.others)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
}
