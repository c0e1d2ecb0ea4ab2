package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse checks that no text makes Parse panic or run away, that every
// problem stands at a place inside the file, that printing never fails, and
// that what is accepted is valid and renders to a file that is accepted.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad", "warn"} {
		paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
		if err != nil || len(paths) == 0 {
			f.Fatal("no seeds: ", err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 || strings.Contains(string(text), "file") {
			return // secrets' files are not the subject
		}
		c, err := Parse("stent.yaml", text, environment)
		if err != nil {
			list, ok := errors.AsType[Errors](err)
			if !ok || len(list) == 0 {
				t.Fatalf("got %v, want Errors", err)
			}
			inside(t, text, list)
			return
		}
		inside(t, text, c.Warnings())
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
		c.Redacted()
	})
}

// inside checks the places of problems.
func inside(t *testing.T, text []byte, list []*Error) {
	t.Helper()
	lines := splitLines(trimBOM(string(text)))
	for _, e := range list {
		if e.Message == "" || e.Error() == "" {
			t.Errorf("no message: %#v", e)
		}
		if e.File != "stent.yaml" || e.Line < 1 || e.Line > len(lines) {
			t.Fatalf("line %d of %d: %v", e.Line, len(lines), e)
		}
		if width := utf8.RuneCountInString(lines[e.Line-1]); e.Column < 1 || e.Column > width+1 {
			t.Fatalf("column %d of %d: %v", e.Column, width, e)
		}
	}
}

func TestPlacesAreInsideTheFile(t *testing.T) {
	for _, folder := range []string{"bad", "warn"} {
		each(t, folder, func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse("stent.yaml", text, environment)
			list, ok := errors.AsType[Errors](err)
			if !ok {
				list = c.Warnings()
			}
			inside(t, text, list)
		})
	}
}

// Files made to be expensive stay cheap: what bounds them is the count of
// values and problems, not the clock.
func TestExpensiveFiles(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x]\n"
	merges := "a: &a {x: 1}\n"
	for c := 'b'; c <= 'z'; c++ {
		before, name := string(c-1), string(c)
		bomb += name + ": &" + name + " [*" + before + strings.Repeat(", *"+before, 7) + "]\n"
		merges += name + ": &" + name + " {<<: [*" + before + ", *" + before + "], x" + name + ": 1}\n"
	}
	for name, text := range map[string]string{
		"alias bomb":     bomb + "routes: [{path: /, upstream: none, handlers: [{h: *z}]}]\n",
		"merge bomb":     merges + "routes: [*z]\n",
		"nested lists":   strings.Repeat("[", 1<<16),
		"nested blocks":  strings.Repeat("- ", 1<<16),
		"nested keys":    strings.Repeat("? ", 1<<16),
		"one key":        strings.Repeat("a: 1\n", 1<<15),
		"one line":       "{" + strings.Repeat("ab: 1, ", 1<<14) + "}",
		"routes":         "routes:\n" + strings.Repeat("- {path: /a, upstrem: b}\n", 1<<12),
		"aliased routes": smallest + "scopes:\n- &s {path: /, routes: [&r {path: /a, upstream: app}" + strings.Repeat(", *r", 1<<9) + "]}\n" + strings.Repeat("- *s\n", 1<<10),
		"too large":      strings.Repeat("#", maxSource+1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("stent.yaml", []byte(text), environment)
			list, ok := errors.AsType[Errors](err)
			if !ok {
				t.Fatalf("got %v, want Errors", err)
			}
			if len(list) > maxErrors+1 {
				t.Errorf("got %d problems", len(list))
			}
			inside(t, []byte(text), list)
		})
	}
}
