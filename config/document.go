package config

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of a file.
const (
	maxSource = 1 << 20 // bytes
	maxDepth  = 64      // levels of nesting
	maxValues = 1 << 17 // values, aliases followed
)

// syntaxError is a problem met before there are key paths.
type syntaxError struct {
	pos     position
	message string
}

func (e *syntaxError) Error() string { return e.message }

// lineBreaks makes one of all that ends a line for the YAML library, and so
// for positions.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

func splitLines(src string) []string { return strings.Split(lineBreaks.Replace(src), "\n") }

// document parses src, which must hold exactly one YAML document, and
// resolves its anchors, aliases and merge keys.
func document(src string) (*node, error) {
	if err := readable(src); err != nil {
		return nil, err
	}
	loader, err := yaml.NewLoader(strings.NewReader(src))
	if err != nil {
		return nil, fmt.Errorf("start the YAML parser: %w", err)
	}
	var first, second yaml.Node
	switch err := loader.Load(&first); {
	case errors.Is(err, io.EOF):
		return nil, &syntaxError{position{1, 1}, "the file is empty"}
	case err != nil:
		return nil, syntax(err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, &syntaxError{place(&second), "a second document begins here: the file must hold one"}
	case !errors.Is(err, io.EOF):
		return nil, syntax(err)
	}
	r := resolver{anchored: make(map[*yaml.Node]*node), budget: maxValues}
	root := r.resolve(first.Content[0], 0)
	return root, errors.Join(r.errs...)
}

// readable refuses what YAML does not allow in a file (section 5.1).
func readable(src string) error {
	pos := position{1, 1}
	for i, r := range src {
		switch {
		case r == '\n':
			pos = position{pos.line + 1, 1}
			continue
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(src[i:]); size <= 1 {
				return &syntaxError{pos, "the file is not valid UTF-8"}
			}
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return &syntaxError{pos, fmt.Sprintf("control character %U", r)}
		}
		pos.column++
	}
	return nil
}

// syntax takes place and message from an error of the library, which goes no
// further than its first.
func syntax(err error) error {
	bad, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return &syntaxError{position{1, 1}, err.Error()}
	}
	message := bad.Message
	if bad.ContextMsg != "" {
		message = bad.ContextMsg + ": " + message
	}
	return &syntaxError{position{bad.Mark.Line, bad.Mark.Column}, message}
}

func place(n *yaml.Node) position { return position{n.Line, n.Column} }

// resolver turns the library's tree into nodes.
type resolver struct {
	// anchored holds the values of anchors; nil while one is being resolved.
	anchored map[*yaml.Node]*node
	budget   int // fields that merge keys may still add
	errs     []error
}

func (r *resolver) fail(pos position, format string, args ...any) {
	r.errs = append(r.errs, &syntaxError{pos, fmt.Sprintf(format, args...)})
}

func (r *resolver) resolve(n *yaml.Node, depth int) *node {
	if n.Anchor == "" || n.Kind == yaml.AliasNode {
		return r.value(n, depth)
	}
	r.anchored[n] = nil
	value := r.value(n, depth)
	r.anchored[n] = value
	return value
}

func (r *resolver) value(n *yaml.Node, depth int) *node {
	pos := place(n)
	if depth > maxDepth {
		r.fail(pos, "nested more than %d levels deep", maxDepth)
		return &node{pos: pos}
	}
	switch n.Kind {
	case yaml.MappingNode:
		return r.mapping(n, depth)
	case yaml.SequenceNode:
		list := &node{kind: kindList, pos: pos}
		for _, entry := range n.Content {
			list.items = append(list.items, r.resolve(entry, depth+1))
		}
		r.tagged(n, list)
		return list
	case yaml.AliasNode:
		if value := r.anchored[n.Alias]; value != nil {
			return value
		}
		r.fail(pos, "the anchor %q holds itself", n.Value)
		return &node{pos: pos}
	default:
		return r.scalar(n)
	}
}

// scalar resolves a scalar by its text, and not as the library did, which
// follows YAML 1.1 in places.
func (r *resolver) scalar(n *yaml.Node) *node {
	value := &node{kind: kindString, pos: place(n), text: n.Value}
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quoted == 0 {
		value.kind = plainKind(n.Value)
	}
	r.tagged(n, value)
	return value
}

// tags are those of the core schema; there are no others.
var tags = map[string]kind{
	"!!str": kindString, "!!null": kindNull, "!!bool": kindBool, "!!int": kindInt,
	"!!float": kindFloat, "!!seq": kindList, "!!map": kindMap, "!": kindString,
}

// tagged applies the tag that is written before a value.
func (r *resolver) tagged(n *yaml.Node, value *node) {
	if n.Style&yaml.TaggedStyle == 0 {
		return
	}
	wants, ok := tags[n.ShortTag()]
	switch {
	case !ok:
		r.fail(value.pos, "unknown tag %s", n.ShortTag())
	case value.kind == wants:
	case wants == kindString && value.scalar(), wants == kindFloat && value.kind == kindInt:
		value.kind = wants
	default:
		r.fail(value.pos, "the tag %s wants %v, not %v", n.ShortTag(), wants, value.kind)
	}
}

func (r *resolver) mapping(n *yaml.Node, depth int) *node {
	m := &node{kind: kindMap, pos: place(n)}
	r.tagged(n, m)
	seen := make(map[string]bool, len(n.Content)/2)
	var merges []*node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], r.resolve(n.Content[i+1], depth+1)
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		name := r.resolve(key, depth+1)
		if !name.scalar() || name.kind == kindNull {
			r.fail(place(key), "a key must be a string, not %v", name.kind)
			continue
		}
		m.fields = append(m.fields, field{name: name.text, pos: place(key), value: value, repeated: seen[name.text]})
		seen[name.text] = true
	}
	for _, from := range merges {
		r.merge(m, from, seen)
	}
	return m
}

// merge adds the fields of from, a map or a list of maps, that m does not
// have. Of several maps the first that has a key gives it.
func (r *resolver) merge(m, from *node, seen map[string]bool) {
	maps := []*node{from}
	if from.kind == kindList {
		maps = from.items
	}
	for _, from := range maps {
		if from.kind != kindMap {
			r.fail(from.pos, "want a map or a list of maps to merge, got %v", from.kind)
			continue
		}
		if r.budget -= len(from.fields); r.budget < 0 {
			r.fail(from.pos, "merge keys add more than %d values", maxValues)
			return
		}
		for _, f := range from.fields {
			if !seen[f.name] {
				seen[f.name] = true
				m.fields = append(m.fields, f)
			}
		}
	}
}

// trimBOM removes the byte order mark that some editors put first.
func trimBOM(src string) string { return strings.TrimPrefix(src, "\ufeff") }
