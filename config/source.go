package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// position is a place in a file; both count from 1, column in characters.
type position struct{ line, column int }

// source is what is kept of a file to say where its keys stand. A nil source
// is that of a configuration built in code.
type source struct {
	name string
	// lines are those of the file; after conceal without its secrets.
	lines []string
	// keys maps the path of each key in the file to its place: that of the
	// value for scalars, that of the key for lists and maps.
	keys map[string]position
	// templates maps the path of each string that named an environment
	// variable to its text in the file.
	templates map[string]string
}

func newSource(name string, text string) *source {
	return &source{
		name:      name,
		lines:     splitLines(text),
		keys:      make(map[string]position),
		templates: make(map[string]string),
	}
}

// find returns the place of a key or, where the file does not have it, of
// the nearest key above it.
func (s *source) find(path string) position {
	if s == nil {
		return position{}
	}
	for path != "" {
		if pos, ok := s.keys[path]; ok {
			return pos
		}
		path = parent(path)
	}
	return position{1, 1}
}

// at returns an Error that stands at pos, which is moved into the file if it
// lies outside.
func (s *source) at(path string, pos position) *Error {
	if s == nil {
		return &Error{Path: path}
	}
	line := min(max(pos.line, 1), len(s.lines))
	text := s.lines[line-1]
	return &Error{
		File:   s.name,
		Line:   line,
		Column: min(max(pos.column, 1), utf8.RuneCountInString(text)+1),
		Path:   path,
		Source: text,
	}
}

// join appends a key, or a path that begins with one, to a path.
func join(path, key string) string {
	if path == "" || strings.HasPrefix(key, "[") {
		return path + key
	}
	return path + "." + key
}

// item is the path of the i-th entry of the list at path.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parent cuts the last key or index off a path.
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// failures are the paths at which decoding failed. What a check says of
// them is not reported: it saw a default.
type failures struct {
	at, above map[string]bool
}

func (f *failures) add(path string) {
	if f.at == nil {
		f.at, f.above = make(map[string]bool), make(map[string]bool)
	}
	f.at[path] = true
	for !f.above[path] {
		f.above[path] = true
		path = parent(path)
	}
}

// touch reports whether decoding failed at path, at a key above it, or at
// one below it.
func (f *failures) touch(path string) bool {
	if f.above[path] {
		return true
	}
	for ; path != ""; path = parent(path) {
		if f.at[path] {
			return true
		}
	}
	return f.at[""]
}
