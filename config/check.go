package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// problem is what a check found at a key.
type problem struct {
	path       string
	message    string
	suggestion string
	cause      error // where a later step found it
}

// at gives the problem its place in the file.
func (p problem) at(s *source) *Error {
	e := s.at(p.path, s.find(p.path))
	e.Message, e.Suggestion, e.cause = p.message, p.suggestion, p.cause
	return e
}

// checker collects what is wrong with a configuration, and what is only
// doubtful.
type checker struct {
	config   *Config
	problems []problem
	warnings []problem
}

func (c *checker) fail(path, format string, args ...any) *problem {
	c.problems = append(c.problems, problem{path: path, message: fmt.Sprintf(format, args...)})
	return &c.problems[len(c.problems)-1]
}

func (c *checker) warn(path, format string, args ...any) {
	c.warnings = append(c.warnings, problem{path: path, message: fmt.Sprintf(format, args...)})
}

// Validate checks a configuration that was built or changed in code, and
// tells its parts their key paths. The error is Errors. Load and Parse have
// done this already.
func (c *Config) Validate() error {
	c.index()
	var list Errors
	for _, p := range c.check().problems {
		list = append(list, p.at(c.source))
	}
	if len(list) == 0 {
		return nil
	}
	return list.sort()
}

// Warnings lists what is allowed but probably not meant, such as a route
// that is never reached.
func (c *Config) Warnings() []*Error {
	var list Errors
	for _, p := range c.check().warnings {
		list = append(list, p.at(c.source))
	}
	return list.sort()
}

func (c *Config) check() *checker {
	checker := &checker{config: c}
	checker.tags(reflect.ValueOf(c).Elem(), "")
	checker.listeners()
	checker.admin()
	checker.process()
	checker.table()
	checker.upstreams()
	return checker
}

// tags checks what the types and their tags say: names from a closed set,
// no negative numbers, and nothing of a later version.
func (c *checker) tags(v reflect.Value, path string) {
	switch v := v.Interface().(type) {
	case Secret, CIDR, Base64, Balance:
		return
	case Duration:
		c.notNegative(float64(v), path)
		return
	case Plug:
		c.plugOptions(v)
		return
	case Handler:
		if rules, ok := v.Config.(*RulesHandler); ok && rules != nil {
			c.tags(reflect.ValueOf(rules).Elem(), join(path, v.Name))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, k := range keysOf(v.Type()) {
			c.key(k, v.Field(k.index), join(path, k.name))
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.tags(v.Index(i), item(path, i))
		}
	case reflect.Map:
		for _, name := range slices.Sorted(maps.Keys(stringKeys(v))) {
			c.tags(v.MapIndex(reflect.ValueOf(name)), join(path, name))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c.tags(v.Elem(), path)
		}
	case reflect.Int, reflect.Int64:
		c.notNegative(float64(v.Int()), path)
	case reflect.Float64:
		c.notNegative(v.Float(), path)
	default:
	}
}

func stringKeys(v reflect.Value) map[string]bool {
	set := make(map[string]bool, v.Len())
	for _, k := range v.MapKeys() {
		set[k.String()] = true
	}
	return set
}

func (c *checker) key(k key, v reflect.Value, path string) {
	if k.later && !empty(v) {
		c.fail(path, notYet)
		return
	}
	if k.enum != nil {
		c.enum(k, v.String(), path)
		return
	}
	c.tags(v, path)
}

// empty reports whether v asks for nothing: a later key may say so.
func empty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

func (c *checker) enum(k key, value, path string) {
	switch {
	case slices.Contains(k.laterValues, value):
		c.fail(path, "%s is %s", value, notYet)
	case !slices.Contains(k.enum, value):
		names := slices.DeleteFunc(slices.Clone(k.enum), func(s string) bool { return s == "" })
		p := c.fail(path, "%q is not one of %s", value, oneOf(names))
		p.suggestion = suggest(value, names)
	}
}

func (c *checker) notNegative(f float64, path string) {
	if f < 0 {
		c.fail(path, "must not be negative")
	}
}

// plugOptions checks that a plug is known and has its own type of options.
func (c *checker) plugOptions(p Plug) {
	t, ok := plugs[p.Name]
	if !ok {
		c.fail(p.KeyPath, "unknown plug %q", p.Name)
		return
	}
	v := reflect.ValueOf(p.Config)
	if !v.IsValid() || v.Type() != reflect.PointerTo(t) || v.IsNil() {
		c.fail(p.KeyPath, "the options of plug %s must be a *config.%s", p.Name, t.Name())
		return
	}
	c.tags(v.Elem(), join(p.KeyPath, p.Name))
}

// oneOf lists names in a sentence.
func oneOf(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
