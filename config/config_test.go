package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const smallest = `routes:
  - path: /*
    upstream: app
upstreams:
  app:
    targets: [ws://127.0.0.1:9000]
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("stent.yaml", []byte(text), environment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSmallestFileHasAllDefaults(t *testing.T) {
	got := parse(t, smallest)
	want := DefaultConfig()
	route := DefaultRoute()
	route.Path, route.Upstream, route.KeyPath = "/*", "app", "routes[0]"
	want.Routes = []Route{route}
	pool := DefaultUpstream()
	target := DefaultTarget()
	target.URL, target.Name, target.KeyPath = "ws://127.0.0.1:9000", "127.0.0.1:9000", "upstreams.app.targets[0]"
	pool.Targets, pool.KeyPath = []Target{target}, "upstreams.app"
	want.Upstreams = map[string]Upstream{"app": pool}
	want.Listeners[0].KeyPath = "listeners[0]"
	want.Endpoint[0].KeyPath, want.Endpoint[1].KeyPath = "endpoint[0]", "endpoint[1]"
	want.source = got.source
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", *got, want)
	}
}

// Each example that DESIGN and README call a default is one.
func TestDefaultsAreValid(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEntriesBeginWithDefaults(t *testing.T) {
	c := parse(t, `routes:
  - {path: /a, upstream: app, continuity: {hold: 5s}, keepalive: {interval: 1s}}
  - {path: /b, upstream: app, continuity: {backoff: {max: 7s}, on_close: []}}
upstreams:
  app: {targets: [{url: ws://a, name: x}], health: {interval: 9s}, outlier: {}, dial: {attempts: 1}}
listeners: [{address: ":4000", tls: {certificates: [{cert: /c, key: /k}]}}]
endpoint: [{limit: {sessions: 3}}]
`)
	for name, pair := range map[string][2]any{
		"continuity hold":       {c.Routes[0].Continuity.Hold, seconds(5)},
		"continuity restarts":   {c.Routes[0].Continuity.MaxRestarts, 10},
		"continuity codes":      {c.Routes[0].Continuity.OnClose, []int{1001, 1012, 1013}},
		"continuity codes none": {c.Routes[1].Continuity.OnClose, []int{}},
		"backoff max":           {c.Routes[1].Continuity.Backoff.Max, seconds(7)},
		"backoff min":           {c.Routes[1].Continuity.Backoff.Min.String(), "50ms"},
		"keepalive timeout":     {c.Routes[0].Keepalive.Timeout, seconds(10)},
		"health path":           {c.Upstreams["app"].Health.Path, "/healthz"},
		"outlier":               {*c.Upstreams["app"].Outlier, DefaultOutlier()},
		"dial timeout":          {c.Upstreams["app"].Dial.Timeout, seconds(5)},
		"weight":                {c.Upstreams["app"].Targets[0].Weight, 1},
		"tls":                   {c.Listeners[0].TLS.MinVersion, "1.2"},
		"limit":                 {c.Endpoint[0].Config, &LimitPlug{Sessions: 3, Burst: seconds(1), By: "ip"}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestForms(t *testing.T) {
	c, err := Load("testdata/good/forms.yaml", environment)
	if err != nil {
		t.Fatal(err)
	}
	got := c.Routes[1].Handlers
	want := []Handler{
		{Name: "custom", KeyPath: "routes[1].handlers[0]"},
		{Name: "other", KeyPath: "routes[1].handlers[1]", Config: map[string]any{
			"text": "off", "number": 7, "fraction": 0.5, "flag": true, "nothing": nil, "list": []any{1, "two"},
		}},
		{Name: "third", KeyPath: "routes[1].handlers[2]"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("handlers: got %+v, want %+v", got, want)
	}
	if got, want := c.Upstreams["hashed"].Balance, (Balance{Kind: BalanceHash, Key: "cookie:c"}); got != want {
		t.Errorf("balance: got %v, want %v", got, want)
	}
}

// The options of a Go handler have the numbers that the same text is elsewhere
// in the file: a leading zero is not octal.
func TestNumbersOfHandlers(t *testing.T) {
	for text, want := range map[string]any{
		"10": 10, "010": 10, "08": 8, "+7": 7, "-010": -10, "0o17": 15, "0x1F": 31, "1e3": 1000.0,
	} {
		c := parse(t, "routes: [{path: /*, upstream: none, handlers: [{own: {n: "+text+"}}]}]\n")
		got := c.Routes[0].Handlers[0].Config.(map[string]any)["n"]
		if got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestFilesAreTakenFromTheFolder(t *testing.T) {
	text := smallest + "    tls: {ca: ca.pem, cert: /etc/c.pem, key: ../k.pem}\n"
	c, err := Parse(filepath.Join("etc", "stent", "stent.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Upstreams["app"].TLS
	want := UpstreamTLS{CA: filepath.Join("etc", "stent", "ca.pem"), Cert: "/etc/c.pem", Key: filepath.Join("etc", "k.pem")}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLoadTellsUnreadableFromInvalid(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v, want fs.ErrNotExist", err)
	}
	if _, invalid := errors.AsType[Errors](err); invalid {
		t.Error("missing file: got Errors")
	}
	if _, err = Load(t.TempDir()); err == nil {
		t.Error("folder: got no error")
	} else if _, invalid := errors.AsType[Errors](err); invalid {
		t.Error("folder: got Errors")
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxSource+100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(large); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: got %v", err)
	}
}

// What GET /api/config shows is a file again, with the same meaning.
func TestRedactedIsAFile(t *testing.T) {
	for _, name := range []string{"smallest", "full", "anchors", "strings"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("testdata/good/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			want := parse(t, string(text)).Redacted()
			rendered, err := yaml.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if got := parse(t, string(rendered)).Redacted(); !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%v\nwant\n%v", got, want)
			}
			if _, err := json.Marshal(want); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	const secret = "hunter2-and-more"
	c := parse(t, smallest+"admin: {address: \":4001\", token: "+secret+"}\n")
	if got := c.Admin.Token.Value(); got != secret {
		t.Fatalf("value: got %q", got)
	}
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c.Admin)
	if err != nil {
		t.Fatal(err)
	}
	located := c.Locate(&KeyError{Path: "admin.address", Err: errors.New("in use")})
	for name, text := range map[string]string{
		"%v":       fmt.Sprintf("%v", c),
		"%+v":      fmt.Sprintf("%+v", *c),
		"%#v":      fmt.Sprintf("%#v", c.Admin),
		"%s":       fmt.Sprintf("%s", c.Admin.Token),
		"%d":       fmt.Sprintf("%d", c.Admin.Token), //nolint:govet // the wrong verb is the point
		"%q":       fmt.Sprintf("%q", &c.Admin.Token),
		"JSON":     string(encoded),
		"YAML":     string(asYAML),
		"redacted": fmt.Sprint(c.Redacted()),
		"located":  located.Error(),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s: the secret is in %s", name, text)
		}
	}
}

func TestForTarget(t *testing.T) {
	c, err := ForTarget("ws://127.0.0.1:9000", "127.0.0.1:5000", AdminOff)
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Routes[0]; r.Path != "/*" || !r.HTTP || c.Upstreams[r.Upstream].Targets[0].Name != "127.0.0.1:9000" {
		t.Errorf("got %+v", r)
	}
	if c.Listeners[0].Address != "127.0.0.1:5000" || c.Admin.Address != AdminOff {
		t.Errorf("got %+v, %+v", c.Listeners, c.Admin)
	}
	if c, err := ForTarget("wss://a", "", ""); err != nil || c.Listeners[0].Address != ":4000" || c.Admin.Address != "127.0.0.1:4001" {
		t.Errorf("defaults: got %+v, %v", c, err)
	}
	for _, bad := range [][3]string{{"127.0.0.1:9000", "", ""}, {"ws://a", "4000", ""}, {"ws://a", "", ":4001"}} {
		if _, err := ForTarget(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("ForTarget(%q): got no error", bad)
		}
	}
}

func TestLocate(t *testing.T) {
	c := parse(t, `routes:
  - path: /*
    upstream: app
    handlers:
      - rules:
          - {when: "size >", drop: true}
upstreams:
  app:
    targets: [ws://a, {url: ws://b}]
`)
	cause := errors.New("unexpected end")
	err := c.Locate(
		fmt.Errorf("compile: %w", &KeyError{Path: "upstreams.app.targets[1].url", Err: errors.New("no such host")}),
		errors.Join(
			Within("routes[0].handlers[0].rules", &KeyError{Path: "[0].when", Err: cause}),
			&KeyError{Path: "admin.token", Err: errors.New("too short")},
		),
		nil,
		errors.New("no file descriptors"),
	)
	list, ok := errors.AsType[Errors](err)
	if !ok {
		t.Fatalf("got %T", err)
	}
	want := `no file descriptors
stent.yaml:1:1: admin.token: too short
    1 | routes:
      | ^
stent.yaml:6:20: routes[0].handlers[0].rules[0].when: unexpected end
    6 |           - {when: "size >", drop: true}
      |                    ^
stent.yaml:9:29: upstreams.app.targets[1].url: no such host
    9 |     targets: [ws://a, {url: ws://b}]
      |                             ^`
	if got := list.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if err := c.Locate(nil, nil); err != nil {
		t.Errorf("nothing: got %v", err)
	}
}

func TestLocateWithoutSource(t *testing.T) {
	c, err := ForTarget("ws://a", "", "")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Locate(&KeyError{Path: "routes[0].upstream", Err: errors.New("gone")})
	if got, want := err.Error(), "routes[0].upstream: gone"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is compiled has its say about all but the parts that are wrong already.
func TestWithCompile(t *testing.T) {
	cause := errors.New("gone")
	_, err := Parse("stent.yaml", []byte(`routes:
  - {path: /*, upstream: ap, handlers: [one, two: {n: 99999999999999999999}]}
upstreams:
  app: {targets: [ws://a], tls: {cert: a.crt, key: [a.key]}, health: {path: /x}}
`), WithCompile(func(c *Config) error {
		if got := c.Upstreams["app"].Health.Path; got != "/x" {
			t.Errorf("health path: got %q", got)
		}
		var errs []error
		for _, path := range []string{
			"routes[0].upstream",       // what was found before is not said again
			"routes[0].handlers[0]",    // stands alone in its list
			"routes[0].handlers[1]",    // holds what could not be decoded
			"upstreams.app.tls.cert",   // may only lack the key beside it
			"upstreams.app.targets[0]", // has nothing to do with it
			"upstreams.app.health.path",
		} {
			errs = append(errs, &KeyError{Path: path, Err: cause})
		}
		return errors.Join(errs...)
	}))
	list, _ := errors.AsType[Errors](err)
	var got []string
	for _, e := range list {
		got = append(got, e.Path)
	}
	want := []string{
		"routes[0].upstream", "routes[0].handlers[0]", "routes[0].handlers[1].two.n",
		"upstreams.app.targets[0]", "upstreams.app.tls.key", "upstreams.app.health.path",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got problems at %q, want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}

func TestWithin(t *testing.T) {
	one := Within("routes[0]", errors.New("plain"))
	if got, want := one.Error(), "routes[0]: plain"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	two := Within("a", errors.Join(&KeyError{"b", errors.New("x")}, &KeyError{"[1]", errors.New("y")}))
	if got, want := two.Error(), "a.b: x\na[1]: y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if Within("a", nil) != nil {
		t.Error("nil became an error")
	}
}

func TestValidateWithoutSource(t *testing.T) {
	c := DefaultConfig()
	route := DefaultRoute()
	route.Path, route.Upstream, route.FlightRecorder, route.Log = "live", "caht", 10, "loud"
	c.Routes = []Route{route}
	c.Endpoint = []Plug{{Name: "limit", Config: LimitPlug{}}, {Name: "origni"}}
	c.Upstreams = map[string]Upstream{"chat": {Targets: []Target{{URL: "ws://a", Weight: 1, Name: "a"}}, Dial: DefaultDial()}}
	err := c.Validate()
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		`endpoint[0]: the options of plug limit must be a *config.LimitPlug`,
		`endpoint[1]: unknown plug "origni"`,
		`routes[0].flight_recorder: not supported yet`,
		`routes[0].log: "loud" is not one of debug, info, warn, error or off`,
		`routes[0].path: a path begins with a slash`,
		`routes[0].upstream: unknown upstream "caht"; did you mean "chat"?`,
		`upstreams.chat.balance: unknown balance ""`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %s in\n%s", want, err)
		}
	}
}

func TestFlatten(t *testing.T) {
	c := parse(t, `pipe_through: [a]
pipelines: {a: [head], b: [head], c: [head]}
scopes:
  - path: /live
    host: "*.example.com"
    pipe_through: [b]
    routes:
      - {path: /, upstream: app}
      - {path: /*, upstream: app, host: x.example.com, pipe_through: [c]}
    scopes:
      - path: /deep
        routes: [{path: /x, upstream: app}]
  - path: /
    routes: [{path: /root, upstream: app}]
routes: [{path: /*, upstream: app}]
upstreams: {app: {targets: [ws://a]}}
`)
	var got []string
	for _, f := range c.Flatten() {
		got = append(got, fmt.Sprintf("%s %s %s %v", f.KeyPath, f.FullPath, f.FullHost, f.Pipelines))
	}
	want := []string{
		"scopes[0].scopes[0].routes[0] /live/deep/x *.example.com [a b]",
		"scopes[0].routes[0] /live *.example.com [a b]",
		"scopes[0].routes[1] /live/* x.example.com [a b c]",
		"scopes[1].routes[0] /root  [a]",
		"routes[0] /*  [a]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
