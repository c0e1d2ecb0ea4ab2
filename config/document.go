package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file. The parser behind this package recurses for each level
// and for each key of a map, and copies a map's tail once per key, so that
// they also bound its stack and its time.
const (
	maxSource = 1 << 20 // bytes
	maxKeys   = 1 << 14 // keys, aliases not followed
	maxDepth  = 64      // levels of nesting
	maxValues = 1 << 17 // values, aliases followed
)

// syntaxError is a problem met before there are key paths.
type syntaxError struct {
	pos     position
	message string
}

func (e *syntaxError) Error() string { return e.message }

// document parses src, which must hold exactly one YAML document, and
// resolves its anchors, aliases and merge keys.
func document(src string) (*node, error) {
	if len(src) > maxSource {
		return nil, &syntaxError{position{1, 1}, fmt.Sprintf("the file is larger than %d bytes", maxSource)}
	}
	if err := readable(src); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(src)
	if err := bounded(tokens); err != nil {
		return nil, err
	}
	file, err := parse(tokens)
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if _, ok := doc.Body.(*ast.DirectiveNode); ok {
			continue
		}
		if body != nil {
			return nil, &syntaxError{place(doc.Body), "a second document: the file must hold one"}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, &syntaxError{position{1, 1}, "the file is empty"}
	}
	r := resolver{anchors: make(map[string]*node), budget: maxValues}
	root := r.resolve(body, 0)
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

// bounded counts keys and levels before the parser meets them.
func bounded(tokens token.Tokens) error {
	keys, flow := 0, 0
	var block []int // columns of the open block collections
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.MappingValueType, token.MappingKeyType, token.SequenceEntryType,
			token.AnchorType, token.TagType:
			keys++
			column := t.Position.Column
			for len(block) > 0 && block[len(block)-1] >= column {
				block = block[:len(block)-1]
			}
			block = append(block, column)
		}
		if keys > maxKeys {
			return &syntaxError{where(t), fmt.Sprintf("more than %d keys and list entries", maxKeys)}
		}
		if flow > maxDepth || len(block) > 4*maxDepth {
			return &syntaxError{where(t), fmt.Sprintf("nested more than %d levels deep", maxDepth)}
		}
	}
	return nil
}

// parse turns tokens into the library's tree. The library reports what is
// wrong at its first error; a panic of it on odd input is such an error too.
func parse(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &syntaxError{position{1, 1}, fmt.Sprintf("the YAML parser gave up: %v", r)}
		}
	}()
	file, err = parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if bad, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		return nil, &syntaxError{where(bad.Token), bad.Message}
	}
	if err != nil {
		return nil, &syntaxError{position{1, 1}, err.Error()}
	}
	return file, nil
}

func where(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// place is where a node begins: for a block map that is its first key.
func place(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return place(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(n.Key)
	}
	return where(n.GetToken())
}

// resolver turns the library's tree into nodes.
type resolver struct {
	anchors map[string]*node
	budget  int // values that aliases and merges may still add
	errs    []error
}

func (r *resolver) fail(pos position, format string, args ...any) {
	r.errs = append(r.errs, &syntaxError{pos, fmt.Sprintf(format, args...)})
}

func (r *resolver) resolve(n ast.Node, depth int) *node {
	if n == nil {
		return &node{}
	}
	pos := place(n)
	if depth > maxDepth {
		r.fail(pos, "nested more than %d levels deep", maxDepth)
		return &node{pos: pos}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return r.mapping(pos, n.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping(pos, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		list := &node{kind: kindList, pos: pos}
		for _, value := range n.Values {
			list.items = append(list.items, r.resolve(value, depth+1))
		}
		return list
	case *ast.AnchorNode:
		// Registered after its value: a node can't hold an alias to itself.
		value := r.resolve(n.Value, depth)
		r.anchors[n.Name.GetToken().Value] = value
		return value
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if value, ok := r.anchors[name]; ok {
			return value
		}
		r.fail(pos, "unknown anchor %q", name)
		return &node{pos: pos}
	case *ast.TagNode:
		return r.tagged(n, depth)
	case *ast.LiteralNode:
		return &node{kind: kindString, pos: pos, text: n.Value.Value}
	}
	return r.plain(n)
}

// plain resolves a scalar by its text, and not as the library did, which
// follows YAML 1.1 in places.
func (r *resolver) plain(n ast.Node) *node {
	t := n.GetToken()
	switch t.Type {
	case token.SingleQuoteType, token.DoubleQuoteType:
		return &node{kind: kindString, pos: where(t), text: t.Value}
	case token.ImplicitNullType:
		return &node{pos: where(t)}
	}
	return &node{kind: plainKind(t.Value), pos: where(t), text: t.Value}
}

// tagged resolves the tags of the core schema; there are no others.
func (r *resolver) tagged(n *ast.TagNode, depth int) *node {
	value := r.resolve(n.Value, depth)
	tag := n.GetToken().Value
	wants, ok := map[string]kind{
		"!!str": kindString, "!!null": kindNull, "!!bool": kindBool, "!!int": kindInt,
		"!!float": kindFloat, "!!seq": kindList, "!!map": kindMap,
	}[tag]
	switch {
	case !ok:
		r.fail(where(n.GetToken()), "unknown tag %s", tag)
	case value.kind == wants:
	case wants == kindString && value.scalar(), wants == kindFloat && value.kind == kindInt:
		return &node{kind: wants, pos: value.pos, text: value.text}
	default:
		r.fail(value.pos, "want %v for tag %s, got %v", wants, tag, value.kind)
	}
	return value
}

func (r *resolver) mapping(pos position, values []*ast.MappingValueNode, depth int) *node {
	m := &node{kind: kindMap, pos: pos}
	seen := make(map[string]bool, len(values))
	var merges []*node
	for _, value := range values {
		if value.Key.IsMergeKey() {
			merges = append(merges, r.resolve(value.Value, depth+1))
			continue
		}
		name, ok := r.key(value.Key)
		if !ok {
			r.fail(place(value.Key), "a key must be a string")
			continue
		}
		m.fields = append(m.fields, field{
			name:     name,
			pos:      place(value.Key),
			value:    r.resolve(value.Value, depth+1),
			repeated: seen[name],
		})
		seen[name] = true
	}
	for _, merge := range merges {
		r.merge(m, merge, seen)
	}
	return m
}

// key returns the text of a map's key.
func (r *resolver) key(n ast.Node) (string, bool) {
	if k, ok := n.(*ast.MappingKeyNode); ok {
		n = k.Value
	}
	key := r.resolve(n, 0)
	return key.text, key.scalar() && key.kind != kindNull
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
		for _, f := range slices.Clone(from.fields) {
			if !seen[f.name] {
				seen[f.name] = true
				m.fields = append(m.fields, f)
			}
		}
	}
}

// trimBOM removes the byte order mark that some editors put first.
func trimBOM(src string) string { return strings.TrimPrefix(src, "\ufeff") }
