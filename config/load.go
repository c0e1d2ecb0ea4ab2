package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Option changes how a configuration is read.
type Option func(*decoder)

// WithEnvironment looks variables up with lookup, not in the process's
// environment.
func WithEnvironment(lookup func(name string) (value string, ok bool)) Option {
	return func(d *decoder) { d.lookup = lookup }
}

// WithCompile has compile look at the configuration too, as far as it could be
// decoded and whatever is wrong with it. The KeyErrors that it returns join the
// problems of the file.
func WithCompile(compile func(*Config) error) Option {
	return func(d *decoder) { d.compile = compile }
}

// Load reads, decodes and validates the file at path. An error that is not
// Errors means that the file could not be read.
func Load(path string, options ...Option) (*Config, error) {
	src, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return Parse(path, src, options...)
}

// read returns what is at path, cut off above the bound that Parse refuses.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxSource+1))
}

// Parse decodes and validates src, the text of a file called name. Relative
// paths in it are taken from the folder of name. The error is Errors: every
// problem of the text at once.
func Parse(name string, src []byte, options ...Option) (*Config, error) {
	if len(src) > maxSource {
		return nil, Errors{{File: name, Line: 1, Column: 1, Message: fmt.Sprintf("the file is larger than %d bytes", maxSource)}}
	}
	text := trimBOM(string(src))
	d := &decoder{
		source: newSource(name, text),
		folder: filepath.Dir(name),
		lookup: os.LookupEnv,
		budget: maxValues,
	}
	for _, option := range options {
		option(d)
	}
	root, err := document(text)
	d.source.conceal(root)
	if err != nil {
		return nil, d.syntax(err)
	}
	c := DefaultConfig()
	c.source = d.source
	d.root(root, &c)
	c.index()
	d.add(c.check().problems)
	if d.compile != nil {
		err := d.compile(&c)
		d.add(d.sound(found(err)))
		if err != nil && len(d.errs) == 0 {
			d.add([]problem{{message: err.Error(), cause: err}})
		}
	}
	if len(d.errs) > 0 {
		return nil, d.report()
	}
	return &c, nil
}

// add records what a check found, but for keys at which something is wrong
// already: the check saw a default there.
func (d *decoder) add(list []problem) {
	list = slices.DeleteFunc(list, func(p problem) bool { return d.failed.touch(p.path) })
	for _, p := range list {
		d.failed.add(p.path)
		if len(d.errs) >= maxErrors {
			d.more++
			continue
		}
		d.errs = append(d.errs, p.at(d.source))
	}
}

// ErrChecked is for what compiles a configuration: it stands for a mistake that
// Parse has found by itself, at the keys where it was made. Only of a
// configuration that Parse has not seen is it news.
var ErrChecked = errors.New("the configuration was not checked")

// found are the problems that err names by their keys.
func found(err error) []problem {
	var list []problem
	for _, e := range flatten(err) {
		if errors.Is(e, ErrChecked) {
			continue
		}
		p := problem{message: e.Error(), cause: e}
		if key, ok := errors.AsType[*KeyError](e); ok {
			p = problem{path: key.Path, message: key.Err.Error(), cause: key.Err}
		}
		list = append(list, p)
	}
	return list
}

// sound drops problems at keys beside which something is wrong: what is
// compiled takes the keys of a map together, the entries of a list one by one.
func (d *decoder) sound(list []problem) []problem {
	return slices.DeleteFunc(list, func(p problem) bool {
		return !strings.HasSuffix(p.path, "]") && d.failed.touch(parent(p.path))
	})
}

// report returns the problems in the order of the file.
func (d *decoder) report() Errors {
	list := d.errs.sort()
	if d.more > 0 {
		last := *list[len(list)-1]
		last.Path, last.Message, last.Suggestion = "", fmt.Sprintf("and %d more problems", d.more), ""
		list = append(list, &last)
	}
	return list
}

// syntax gives the problems met before there were key paths their places.
func (d *decoder) syntax(err error) Errors {
	var list Errors
	for _, part := range flatten(err) {
		e := &Error{Message: part.Error()}
		if bad, ok := errors.AsType[*syntaxError](part); ok {
			e = d.source.at("", bad.pos)
			e.Message = bad.message
		}
		list = append(list, e)
	}
	return list.sort()
}
