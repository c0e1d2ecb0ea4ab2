package config

import (
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// A secret is hidden where it stands, however it is written there, and what is
// beside it is not.
func TestConceal(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", "admin: {token: hunter, address: x} # y", "admin: {token: ******, address: x} # y"},
		{"plain in a block", "admin:\n  token: hunt,er} 2 # y", "admin:\n  token: ********** # y"},
		{"plain over lines", "admin:\n  token: hunt\n    er\n  address: x", "admin:\n  token: ****\n******\n  address: x"},
		{"double quotes", `admin: {token: "hunt\"er\\", address: "x"}`, `admin: {token: "**********", address: "x"}`},
		{"double quotes over lines", "admin: {token: \"hunt\\\n  er\", address: x}", "admin: {token: \"*****\n****\", address: x}"},
		{"hexadecimal", `admin: {token: "\x68unter"}`, `admin: {token: "*********"}`},
		{"single quotes", `admin: {token: 'hunt''er', address: 'x'}`, `admin: {token: '********', address: 'x'}`},
		{"literal", "admin:\n  token: |- # y\n    hunt\n\n    er\n  address: x", "admin:\n  token: |- # y\n********\n\n******\n  address: x"},
		{"folded", "admin:\n  token: >2\n     hunt\n    er\n  address: x", "admin:\n  token: >2\n*********\n******\n  address: x"},
		{"tag and anchor", "admin:\n  token: !!str &a # 'y'\n    'hunter'\n", "admin:\n  token: !!str &a # 'y'\n    '******'\n"},
		{"unknown tag", "admin: {token: !vault hunter}", "admin: {token: !vault ******}"},
		{"alias", "log: {level: &a hunter}\nadmin: {token: *a}", "log: {level: &a ******}\nadmin: {token: *a}"},
		{"empty", `admin: {token: "", address: x}`, `admin: {token: "", address: x}`},
		{"tag of nothing", `admin: {token: !!str , "address": x}`, `admin: {token: !!str , "address": x}`},
		{"number", "admin: {token: 12345}", "admin: {token: *****}"},
		{"boolean", "admin: {token: true}", "admin: {token: ****}"},
		{"list", "admin: {token: [hunter, {a: hunter}]}", "admin: {token: [******, {a: ******}]}"},
		{"file", "admin: {token: {file: token.txt, text: hunter}}", "admin: {token: {file: token.txt, text: ******}}"},
		{"variable", `admin: {token: "${NAME}"}`, `admin: {token: "${NAME}"}`},
		{"more than a variable", "admin: {token: '${NAME:-hunter}'}", "admin: {token: '***************'}"},
		{"dollars", "admin: {token: hunt$$er}", "admin: {token: ********}"},
		{"twice", "admin: {token: hunter, token: hunter}", "admin: {token: ******, token: ******}"},
		{"in a list", "admin: [{token: hunter}]", "admin: [{token: ******}]"},
		{"key misspelt", "admin: {tokn: hunter, adress: x}", "admin: {tokn: ******, adress: x}"},
		{"key above misspelt", "admn: {token: hunter}", "admn: {token: ******}"},
		{"key elsewhere", "routes: [{token: hunter, path: /x}]", "routes: [{token: ******, path: /x}]"},
		{"handler of one's own", "routes: [{handlers: [own: {api_key: hunter, size: 1}]}]", "routes: [{handlers: [own: {api_key: ******, size: 1}]}]"},
		{"users", "pipelines: {a: [basic_auth: {users: {bob: 12345}, realm: x}]}", "pipelines: {a: [basic_auth: {users: {bob: *****}, realm: x}]}"},
		{"users as a list", "pipelines: {a: [basic_auth: {users: [bob: hunter]}]}", "pipelines: {a: [basic_auth: {users: [bob: ******]}]}"},
		{"users as text", "pipelines: {a: [basic_auth: {users: hunter}]}", "pipelines: {a: [basic_auth: {users: ******}]}"},
		{"list as text", "pipelines: {a: [session: {old_secrets: hunter}]}", "pipelines: {a: [session: {old_secrets: ******}]}"},
		{"plug misspelt", "pipelines: {a: [sesion: {secret: hunter, cookie: x}]}", "pipelines: {a: [sesion: {secret: ******, cookie: x}]}"},
		{"plugs in a map", "pipelines: {a: {session: {secret: hunter}}}", "pipelines: {a: {session: {secret: ******}}}"},
		{"pipeline that sounds like one", "pipelines: {secret: [accepts: [html]]}", "pipelines: {secret: [accepts: [html]]}"},
		{"header", "endpoint: [headers: {request: {set: {Authorization: hunter, X-A: x}}}]", "endpoint: [headers: {request: {set: {Authorization: ******, X-A: x}}}]"},
		{"URL with a password", "upstreams: {a: {targets: [ws://bob:hunter@host/x@y]}}", "upstreams: {a: {targets: [ws://*****************@y]}}"},
		{"URL with a wild password", `upstreams: {a: {targets: [ws://bob:hu/nt?er#@host, "ws:\/\/bob:hunter@host"]}}`, `upstreams: {a: {targets: [ws://*************@host, "ws:\/\/**********@host"]}}`},
		{"URL without one", "upstreams: {a: {targets: [ws://host/x, ws://b]}} # a@b", "upstreams: {a: {targets: [ws://host/x, ws://b]}} # a@b"},
		{"URL in no YAML", "targets: [ws://bob:hunter@host", "targets: [ws://**********@host"},
		{"no YAML", `admin: {token: "hunt\"er", password: 'hunt''er'`, `admin: {token: **********, password: **********`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSource("stent.yaml", tt.text)
			root, _ := document(tt.text)
			s.conceal(root)
			got := strings.Join(s.lines, "\n")
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// concealed matches stars, which are all that is left of a scalar, beside quotes and the header of a
// block.
var concealed = regexp.MustCompile(`^\s*("[*\n]*"|'[*\n]*'|[*][*\n]*|[|>][0-9+-]*\n[*\n]*)$`)

// FuzzConceal writes a secret in each way that YAML has.
func FuzzConceal(f *testing.F) {
	styles := []yaml.Style{0, yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle}
	for i := range styles {
		for _, secret := range []string{"hunter", "it's\n \"a\\\" secret", " # é\u2028,]}", "- a: b\n\n\tc"} {
			f.Add(secret, uint8(i), i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, secret string, style uint8, flow bool) {
		scalar := func(text string, s yaml.Style) *yaml.Node {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: s}
		}
		table := func(s yaml.Style, content ...*yaml.Node) *yaml.Node {
			return &yaml.Node{Kind: yaml.MappingNode, Style: s, Content: content}
		}
		inner := yaml.Style(0)
		if flow {
			inner = yaml.FlowStyle
		}
		text, err := yaml.Marshal(table(0, scalar("admin", 0), table(inner,
			scalar("token", 0), scalar(secret, styles[int(style)%len(styles)]), scalar("address", 0), scalar("x", 0))))
		if err != nil {
			return
		}
		root, err := document(string(text))
		if err != nil {
			return
		}
		value := root.fields[0].value.fields[0].value
		if value.kind == kindNull || strings.TrimFunc(value.text, blank) == "" || bareVariable.MatchString(value.text) {
			return
		}
		s := newSource("stent.yaml", string(text))
		s.conceal(root)
		_, rest, _ := strings.Cut(strings.Join(s.lines, "\n"), "token:")
		written, _, found := strings.Cut(rest, "address:")
		written = strings.TrimRightFunc(strings.TrimSuffix(strings.TrimRightFunc(written, blank), ","), blank)
		if !found || !concealed.MatchString(written) {
			t.Errorf("%q shows as\n%s", text, strings.Join(s.lines, "\n"))
		}
	})
}
