package config_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The README lists what is refused as not supported yet, all of it and
// nothing else.
func TestReadmeListsUnsupportedKeys(t *testing.T) {
	_, list, ok := strings.Cut(readme(t), `Refused with "not supported yet", never ignored:`)
	if !ok {
		t.Fatal("the README has no such list")
	}
	list, _, _ = strings.Cut(list, "\n\n")
	var got []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		got = append(got, m[1])
	}
	want := config.Unsupported()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("README lists\n%q\nwant\n%q", got, want)
	}
}

// Whole configurations in the README are valid, and its continuity section
// shows the defaults.
func TestReadmeExamples(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	for _, b := range blocks {
		text := b[1]
		switch {
		case strings.HasPrefix(text, "routes:"):
		case strings.HasPrefix(text, "listeners:"):
			text += "routes: [{path: /*, upstream: app}]\nupstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n"
		case strings.HasPrefix(text, "continuity:"), strings.HasPrefix(text, "handlers:"):
			indented := "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
			text = "routes:\n  - path: /*\n    upstream: app\n" + indented + "\nupstreams: {app: {targets: [\"ws://127.0.0.1:9000\"]}}\n"
		default:
			t.Errorf("no test for the block\n%s", text)
			continue
		}
		cfg, err := config.Parse("README.md", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if strings.HasPrefix(b[1], "continuity:") {
			got, want := *cfg.Routes[0].Continuity, config.DefaultContinuity()
			if !equalContinuity(got, want) {
				t.Errorf("continuity in the README is %+v, the defaults are %+v", got, want)
			}
		}
	}
}

func equalContinuity(a, b config.Continuity) bool {
	if !slices.Equal(a.OnClose, b.OnClose) {
		return false
	}
	a.OnClose, b.OnClose = nil, nil
	return a.Hold == b.Hold && a.MaxRestarts == b.MaxRestarts && a.MaxSeconds == b.MaxSeconds &&
		a.Backoff == b.Backoff && a.Whole == b.Whole && a.Buffer == b.Buffer && a.OnFull == b.OnFull &&
		a.Replay == b.Replay && a.AcceptEarly == b.AcceptEarly
}
