package plug

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token/tokentest"
)

// Configurations in this folder's README are valid, without a warning: whole
// ones, pipelines, and lists of plugs.
func TestReadmeExamples(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	environment := config.WithEnvironment(func(name string) (string, bool) { return tokentest.Secret, true })
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("there are none")
	}
	for _, b := range blocks {
		block := b[1]
		if strings.HasPrefix(block, "- ") {
			block = "pipelines:\n  example:\n    " + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n    ") + "\n"
		}
		if !regexp.MustCompile(`(?m)^(routes|scopes):`).MatchString(block) {
			// The top level of an example is all that has two blanks before it.
			names := regexp.MustCompile(`(?m)^  (\w+):`).FindAllStringSubmatch(block, -1)
			var pipes []string
			for _, name := range names {
				pipes = append(pipes, name[1])
			}
			block += "routes: [{path: /*, upstream: app, pipe_through: [" + strings.Join(slices.Compact(pipes), ", ") + "]}]\n" +
				"upstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n"
		}
		cfg, err := config.Parse("README.md", []byte(block), environment)
		if err != nil {
			t.Errorf("%v\n%s", err, block)
			continue
		}
		for _, w := range cfg.Warnings() {
			t.Errorf("%v\n%s", w, block)
		}
		for name, plugs := range cfg.Pipelines {
			if _, err := CompilePipeline(plugs, Env{Pipeline: name}); err != nil {
				t.Errorf("%v\n%s", cfg.Locate(err), block)
			}
		}
	}
}
