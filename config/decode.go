package config

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder fills a Config from nodes, strictly, and goes on after a problem.
// The library's own decoder is not used since it stops at the first one.
type decoder struct {
	source *source
	folder string
	lookup func(string) (string, bool)
	budget int // values left, so that aliases can't multiply without bound
	// compile looks at what has been decoded; nil where nothing does.
	compile func(*Config) error

	errs   Errors
	more   int // problems beyond maxErrors
	failed failures
}

// maxErrors bounds what is reported of a file that is wrong throughout.
const maxErrors = 1000

// unmarshaler is a type with a YAML form of its own.
type unmarshaler interface {
	decode(d *decoder, n *node, path string)
}

// fail records a problem at the value n.
func (d *decoder) fail(n *node, path, format string, args ...any) *Error {
	return d.failAt(n.pos, path, format, args...)
}

func (d *decoder) failAt(pos position, path, format string, args ...any) *Error {
	d.failed.add(path)
	if len(d.errs) >= maxErrors {
		d.more++
		return new(Error)
	}
	e := d.source.at(path, pos)
	e.Message = fmt.Sprintf(format, args...)
	d.errs = append(d.errs, e)
	return e
}

// mismatch records that n is not of the kind that was wanted.
func (d *decoder) mismatch(n *node, path, want string) {
	e := d.fail(n, path, "want %s, got %s", want, describe(n))
	if want == "a string" && n.scalar() {
		e.Message += "; put it in quotes"
	}
}

// describe says what n is, with its text where that is short.
func describe(n *node) string {
	const shown = 40
	switch text := n.shown(); {
	case !n.scalar(), n.kind == kindNull, len(text) > shown:
		return n.kind.String()
	case n.kind == kindString:
		return strconv.Quote(text)
	default:
		return n.kind.String() + " (" + text + ")"
	}
}

// root decodes the whole document.
func (d *decoder) root(n *node, c *Config) {
	if n.kind != kindMap {
		d.mismatch(n, "", "a map of keys such as routes and upstreams")
		return
	}
	d.structure(n, reflect.ValueOf(c).Elem(), "")
}

// value decodes n into v, whose defaults are already there.
func (d *decoder) value(n *node, v reflect.Value, path string) {
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.fail(n, path, "aliases make more than %d values of this file", maxValues)
		}
		return
	}
	n = d.expanded(n, path)
	if n == nil {
		return
	}
	if u, ok := v.Addr().Interface().(unmarshaler); ok {
		u.decode(d, n, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := newValue(v.Type().Elem())
		d.value(n, fresh.Elem(), path)
		v.Set(fresh)
	case reflect.Struct:
		if n.kind != kindMap {
			d.mismatch(n, path, "a map")
			return
		}
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.table(n, v, path)
	case reflect.String:
		if n.kind != kindString {
			d.mismatch(n, path, "a string")
			return
		}
		v.SetString(n.text)
	case reflect.Bool:
		if n.resolved() != kindBool {
			d.mismatch(n, path, "true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.text, "true"))
	case reflect.Int:
		d.integer(n, v, path)
	case reflect.Float64:
		d.float(n, v, path)
	default:
		d.fail(n, path, "no YAML form for type %s", v.Type())
	}
}

// newValue returns a pointer to a new t that holds t's defaults.
func newValue(t reflect.Type) reflect.Value {
	fresh := reflect.New(t)
	if def, ok := defaults[t]; ok {
		fresh.Elem().Set(reflect.ValueOf(def()))
	}
	return fresh
}

// expanded returns n with its environment variables replaced, or nil when
// one is missing.
func (d *decoder) expanded(n *node, path string) *node {
	if n.kind != kindString || !strings.Contains(n.text, "$") {
		return n
	}
	text, err := expand(n.text, d.lookup)
	if err != nil && n.secret {
		// The error itself may repeat a part of the secret.
		err = errors.New(`"${" begins no variable that is set; write $${ for the characters themselves`)
	}
	if err != nil {
		d.fail(n, path, "%s", err)
		return nil
	}
	if text == n.text {
		return n
	}
	d.source.templates[path] = n.text
	return &node{kind: kindString, pos: n.pos, text: text, template: n.text, secret: n.secret}
}

// field notes where a key stands, for errors found later, and decodes its
// value. A key without a value is an error: what it would mean, the default
// or "off", is not plain to see.
func (d *decoder) field(f field, v reflect.Value, path string) {
	if f.value.kind == kindNull {
		d.failAt(f.pos, path, "no value; %s", remedy(v.Type()))
		return
	}
	d.note(f, path)
	d.value(f.value, v, path)
}

func (d *decoder) note(f field, path string) {
	pos := f.pos
	if f.value.scalar() {
		pos = f.value.pos
	}
	d.source.keys[path] = pos
}

// remedy says how to write what an empty value may have meant.
func remedy(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && len(keysOf(t)) > 0 {
		return "write {} for the defaults, or leave the key out"
	}
	return "leave the key out to get the default"
}

// unique drops the fields whose name the map has above, after saying so.
func (d *decoder) unique(n *node, path string) []field {
	for _, f := range n.fields {
		if f.repeated {
			d.failAt(f.pos, join(path, f.name), "the key is there twice")
		}
	}
	return slices.DeleteFunc(slices.Clone(n.fields), func(f field) bool { return f.repeated })
}

func (d *decoder) structure(n *node, v reflect.Value, path string) {
	keys := keysOf(v.Type())
	for _, f := range d.unique(n, path) {
		at := join(path, f.name)
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == f.name })
		if i < 0 {
			d.unknown(f, at, "key", names(keys))
			continue
		}
		target := v.Field(keys[i].index)
		d.field(f, target, at)
		if keys[i].path && !d.failed.touch(at) {
			target.SetString(d.absolute(target.String()))
		}
	}
}

// unknown records that there is no such key, plug or the like as f's. The one
// that was meant counts as failed too: it is not also missing.
func (d *decoder) unknown(f field, path, what string, known []string) {
	e := d.failAt(f.pos, path, "unknown %s", what)
	if e.Suggestion = suggest(f.name, known); e.Suggestion != "" {
		d.failed.add(join(strings.TrimSuffix(strings.TrimSuffix(path, f.name), "."), e.Suggestion))
	}
}

// absolute takes a path from the folder of the configuration.
func (d *decoder) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.folder, path)
}

func (d *decoder) list(n *node, v reflect.Value, path string) {
	if n.kind != kindList {
		d.mismatch(n, path, "a list")
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, len(n.items))
	for i, entry := range n.items {
		at := item(path, i)
		d.source.keys[at] = entry.pos
		fresh := newValue(v.Type().Elem()).Elem()
		if entry.kind == kindNull {
			d.fail(entry, at, "an entry without a value")
		} else {
			d.value(entry, fresh, at)
		}
		list = reflect.Append(list, fresh)
	}
	v.Set(list)
}

func (d *decoder) table(n *node, v reflect.Value, path string) {
	if n.kind != kindMap {
		d.mismatch(n, path, "a map")
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(n.fields))
	for _, f := range d.unique(n, path) {
		fresh := newValue(v.Type().Elem()).Elem()
		d.field(f, fresh, join(path, f.name))
		table.SetMapIndex(reflect.ValueOf(f.name), fresh)
	}
	v.Set(table)
}

func (d *decoder) integer(n *node, v reflect.Value, path string) {
	if n.resolved() != kindInt {
		d.mismatch(n, path, "a whole number")
		return
	}
	i, err := parseInt(n.text)
	if err != nil || i > math.MaxInt32 || i < math.MinInt32 {
		d.fail(n, path, "%s is out of range", n.shown())
		return
	}
	v.SetInt(i)
}

// parseInt reads a whole number as the core schema writes it. Base 0 would
// take a leading zero for octal, as YAML 1.1 did.
func parseInt(text string) (int64, error) {
	base, digits := 10, text
	switch {
	case strings.HasPrefix(text, "0o"):
		base, digits = 8, text[2:]
	case strings.HasPrefix(text, "0x"):
		base, digits = 16, text[2:]
	}
	return strconv.ParseInt(digits, base, strconv.IntSize)
}

func (d *decoder) float(n *node, v reflect.Value, path string) {
	if k := n.resolved(); k != kindInt && k != kindFloat {
		d.mismatch(n, path, "a number")
		return
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		d.fail(n, path, "%s is out of range", n.shown())
		return
	}
	v.SetFloat(f)
}

// resolved is the kind of a scalar, where a string that an environment
// variable has filled may also be a number or a boolean.
func (n *node) resolved() kind {
	if n.kind == kindString && n.template != "" {
		return plainKind(n.text)
	}
	return n.kind
}

// shown is a scalar's text as it stands in the file, which keeps secrets and
// what came from the environment out of messages.
func (n *node) shown() string {
	switch {
	case n.secret:
		return redacted
	case n.template != "":
		return n.template
	}
	return n.text
}
