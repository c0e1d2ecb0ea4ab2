package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Option changes how a configuration is read.
type Option func(*decoder)

// WithEnvironment looks variables up with lookup, not in the process's
// environment.
func WithEnvironment(lookup func(name string) (value string, ok bool)) Option {
	return func(d *decoder) { d.lookup = lookup }
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
	for _, p := range c.check().problems {
		switch {
		case d.failed.touch(p.path):
		case len(d.errs) >= maxErrors:
			d.more++
		default:
			d.errs = append(d.errs, p.at(c.source))
		}
	}
	if len(d.errs) > 0 {
		return nil, d.report()
	}
	return &c, nil
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
