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
	name  string
	lines []string
	// keys maps the path of each key in the file to its place: that of the
	// value for scalars, that of the key for lists and maps.
	keys map[string]position
	// templates maps the path of each string that named an environment
	// variable to its text in the file.
	templates map[string]string
	// secrets are the secrets written in the file itself.
	secrets []string
}

func newSource(name string, text string) *source {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(line, "\r")
	}
	return &source{
		name:      name,
		lines:     lines,
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
		Source: s.blank(text),
	}
}

// blank hides the secrets in a line, without moving what stands beside them.
func (s *source) blank(line string) string {
	for _, secret := range s.secrets {
		line = strings.ReplaceAll(line, secret, strings.Repeat("*", utf8.RuneCountInString(secret)))
	}
	return line
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

// covers reports whether inner is outer or a key below it.
func covers(outer, inner string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}
