package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

// Every configuration in the plugs' README is one that stent check passes,
// and every plug is in it.
func TestPlugReadme(t *testing.T) {
	readme, err := os.ReadFile("plug/README.md")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Fatal("no configuration in the README")
	}
	environment := config.WithEnvironment(func(string) (string, bool) { return strings.Repeat("secret", 8), true })
	shown := make(map[string]bool)
	for _, b := range blocks {
		cfg, err := config.Parse(filepath.Join(folder, "README.md"), []byte(asFile(b[1])), environment)
		if err != nil {
			t.Errorf("%v\n%s", err, b[1])
			continue
		}
		for _, w := range cfg.Warnings() {
			t.Errorf("%v\n%s", w, b[1])
		}
		if _, err := Compile(cfg, nil); err != nil {
			t.Errorf("%v\n%s", cfg.Locate(err), b[1])
		}
		for _, plugs := range cfg.Pipelines {
			for _, p := range plugs {
				shown[p.Name] = true
			}
		}
		for _, p := range cfg.Endpoint {
			shown[p.Name] = true
		}
	}
	for _, name := range []string{"forward_auth", "basic_auth", "ip", "session", "csrf", "jwt", "headers", "redirect", "static", "rate", "limit"} {
		if !shown[name] {
			t.Errorf("the README does not show %s", name)
		}
	}
}

// asFile adds to a block what it leaves out: a route through its pipelines.
func asFile(block string) string {
	if strings.HasPrefix(block, "- ") { // a list of plugs
		block = "pipelines:\n  example:\n    " + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n    ") + "\n"
	}
	if !regexp.MustCompile(`(?m)^(routes|scopes):`).MatchString(block) {
		var names []string
		for _, m := range regexp.MustCompile(`(?m)^  (\w+):\s*$`).FindAllStringSubmatch(block, -1) {
			names = append(names, m[1])
		}
		block += "routes: [{path: /*, upstream: app, pipe_through: [" + strings.Join(names, ", ") + "]}]\n"
	}
	if !strings.Contains(block, "upstreams:") {
		block += "upstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n"
	}
	return block
}
