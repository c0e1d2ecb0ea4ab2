package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write the golden files anew")

// environment is that of all files in testdata.
var environment = WithEnvironment(func(name string) (string, bool) {
	value, ok := map[string]string{
		"HOST":   "127.0.0.1",
		"TOKEN":  "t0ken-from-environment",
		"NUMBER": "7",
		"KIB":    "8",
		"EMPTY":  "",
		"TWICE":  "${HOST} $$",
		"WORD":   "word",
		"FLAG":   "true",
	}[name]
	return value, ok
})

// each runs test for every file of a folder of testdata.
func each(t *testing.T, folder string, test func(t *testing.T, path string)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in testdata/%s: %v", folder, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) { test(t, path) })
	}
}

// golden compares got with the golden file beside path.
func golden(t *testing.T, path, got string) {
	t.Helper()
	file := strings.TrimSuffix(path, ".yaml") + ".golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestBadFiles(t *testing.T) {
	each(t, "bad", func(t *testing.T, path string) {
		_, err := Load(path, environment)
		list, ok := errors.AsType[Errors](err)
		if !ok || len(list) == 0 {
			t.Fatalf("got %v, want Errors", err)
		}
		golden(t, path, list.Error()+"\n")
	})
}

func TestDoubtfulFiles(t *testing.T) {
	each(t, "warn", func(t *testing.T, path string) {
		c, err := Load(path, environment)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, path, Errors(c.Warnings()).Error()+"\n")
	})
}

func TestGoodFiles(t *testing.T) {
	each(t, "good", func(t *testing.T, path string) {
		c, err := Load(path, environment)
		if err != nil {
			t.Fatal(err)
		}
		for _, warning := range c.Warnings() {
			t.Errorf("warning: %s", warning)
		}
		text, err := yaml.Marshal(c.Redacted())
		if err != nil {
			t.Fatal(err)
		}
		golden(t, path, string(text))
	})
}
