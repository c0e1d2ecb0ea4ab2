package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Error is one problem of a configuration and the place where it stands.
type Error struct {
	// File, Line and Column are zero for a configuration built in code. Line
	// and Column count from 1, Column in characters.
	File         string
	Line, Column int
	// Path is the key's path, such as routes[0].upstream; empty where the
	// file is no YAML at all.
	Path    string
	Message string
	// Source is the line that holds the problem, secrets blanked out.
	Source string
	// Suggestion is the name that was probably meant, or empty.
	Suggestion string

	cause error
}

// Error is the problem in one line, followed by the offending line and a
// caret under the place, where there is a source.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	if e.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", e.Suggestion)
	}
	if e.Line > 0 && e.Source != "" {
		line, caret := excerpt(e.Source, e.Column)
		fmt.Fprintf(&b, "\n%5d | %s\n      | %s^", e.Line, line, caret)
	}
	return b.String()
}

// String is the same as Error: warnings are printed as well.
func (e *Error) String() string { return e.Error() }

// Unwrap returns what a later step found, if the problem came from there.
func (e *Error) Unwrap() error { return e.cause }

// excerptWidth bounds how much of a long line is printed on each side of the
// problem.
const excerptWidth = 80

// excerpt returns the part of line around column and the blanks that put a
// caret under it. Tabs are kept, so that both lines are indented alike.
func excerpt(line string, column int) (text, blanks string) {
	var around, lead strings.Builder
	at := 0
	for _, r := range line {
		at++
		if at < column-excerptWidth {
			continue
		}
		if at > column+excerptWidth {
			break
		}
		around.WriteRune(r)
		if at >= column {
			continue
		}
		if r != '\t' {
			r = ' '
		}
		lead.WriteRune(r)
	}
	return around.String(), lead.String()
}

// Errors are all problems of a configuration, in the order of the file.
type Errors []*Error

// Error is every problem on its own lines.
func (l Errors) Error() string {
	var b strings.Builder
	for i, e := range l {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Unwrap returns the problems one by one.
func (l Errors) Unwrap() []error {
	list := make([]error, len(l))
	for i, e := range l {
		list[i] = e
	}
	return list
}

// sort puts the problems in the order of the file and drops repetitions: a
// fault behind an anchor is met once for each alias.
func (l Errors) sort() Errors {
	slices.SortStableFunc(l, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(l, func(a, b *Error) bool {
		same := a.Line == b.Line && a.Column == b.Column && a.Message == b.Message && a.Suggestion == b.Suggestion
		return same && (a.Line > 0 || a.Path == b.Path)
	})
}

// KeyError is an error that a later step finds at a key: Path is that key's
// path, such as routes[0].handlers[1].rules[0].when or
// upstreams.chat.targets[0]. Config.Locate turns it into an Error.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *KeyError) Unwrap() error { return e.Err }

// Within returns err with prefix put in front of the path of every KeyError
// in it. An error without one becomes a KeyError at prefix; nil stays nil.
func Within(prefix string, err error) error {
	if err == nil {
		return nil
	}
	var list []error
	for _, e := range flatten(err) {
		path, cause := prefix, e
		if key, ok := errors.AsType[*KeyError](e); ok {
			path, cause = join(prefix, key.Path), key.Err
		}
		list = append(list, &KeyError{Path: path, Err: cause})
	}
	if len(list) == 1 {
		return list[0]
	}
	return errors.Join(list...)
}

// Locate maps the key paths of errs, joined errors taken apart, back to the
// places in the file. It returns Errors, or nil when there is none. An error
// without a key path keeps its text and has no position. Errors of a
// configuration built in code have a path only.
func (c *Config) Locate(errs ...error) error {
	var list Errors
	for _, err := range errs {
		for _, e := range flatten(err) {
			list = append(list, c.locate(e))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list.sort()
}

func (c *Config) locate(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	key, ok := errors.AsType[*KeyError](err)
	if !ok {
		return &Error{Message: err.Error(), cause: err}
	}
	e := c.source.at(key.Path, c.source.find(key.Path))
	e.Message, e.cause = key.Err.Error(), key.Err
	return e
}

// flatten takes joined errors apart, down to those that carry a position, a
// path, or nothing.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	switch e := err.(type) {
	case *Error, *KeyError:
		return []error{err}
	case interface{ Unwrap() []error }:
		var list []error
		for _, part := range e.Unwrap() {
			list = append(list, flatten(part)...)
		}
		return list
	}
	return []error{err}
}
