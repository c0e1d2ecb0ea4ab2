package rules

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/agnivade/levenshtein"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
)

// uses is the set of names that expressions look at, as far as it costs
// something to have them ready.
type uses uint8

const (
	usesSession uses = 1 << iota
	usesID
	usesRoute
	usesAttempt
	usesHeaders
	usesClaims
	usesSize
)

// The functions that text, json, topic and event turn into: they are worked out when an
// expression gets to them, and not for a message that an earlier operand has
// settled. Their names can't be written in an expression.
const (
	textFunc  = "text()"
	jsonFunc  = "json()"
	topicFunc = "topic()"
	eventFunc = "event()"
)

// environmentTypes are the names of expressions and their types.
var environmentTypes = types.Map{
	"from":    types.String,
	"type":    types.String,
	"size":    types.Int,
	"text":    types.String,
	"json":    types.Any,
	"session": types.String,
	"id":      types.String,
	"route":   types.String,
	"attempt": types.Int,
	"headers": types.TypeOf(map[string]string(nil)),
	"claims":  types.TypeOf(map[string]any(nil)),
	"topic":   types.String,
	"event":   types.String,
	textFunc:  types.TypeOf(func() string { return "" }),
	jsonFunc:  types.TypeOf(func() any { return nil }),
	topicFunc: types.TypeOf(func() string { return "" }),
	eventFunc: types.TypeOf(func() string { return "" }),
}

// usesOf says which names have to be put ready before an expression runs.
var usesOf = map[string]uses{
	"session": usesSession,
	"id":      usesID,
	"route":   usesRoute,
	"attempt": usesAttempt,
	"headers": usesHeaders,
	"claims":  usesClaims,
	"size":    usesSize,
}

// namesVisitor notes the names of an expression, makes the costly ones lazy
// and header names canonical.
type namesVisitor struct {
	uses uses
	// strangers are names that are not the environment's, by their place.
	// Builtin functions and the expression's own variables are among them.
	strangers map[int]string
	// hidden is the error of a name that expr knows and we don't show.
	hidden error
}

// Visit implements ast.Visitor; it sees children before their parents.
func (v *namesVisitor) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		v.uses |= usesOf[n.Value]
		switch n.Value {
		case "text":
			ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: textFunc}})
		case "json":
			ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: jsonFunc}})
		case "topic":
			ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: topicFunc}})
		case "event":
			ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: eventFunc}})
		case "$env":
			// It would show the environment's inside, half filled.
			v.hidden = fmt.Errorf("unknown name $env at column %d of the expression", n.Location().From+1)
		}
		if _, ok := environmentTypes[n.Value]; !ok {
			if v.strangers == nil {
				v.strangers = make(map[int]string)
			}
			v.strangers[n.Location().From] = n.Value
		}
	case *ast.MemberNode:
		of, ok := n.Node.(*ast.IdentifierNode)
		if !ok || of.Value != "headers" {
			return
		}
		if key, ok := n.Property.(*ast.StringNode); ok {
			key.Value = http.CanonicalHeaderKey(key.Value)
		}
	}
}

// describe writes an error of the compiler in one line; the compiler itself
// draws the expression below it, which the configuration's own error does.
func (v *namesVisitor) describe(err error) error {
	at, ok := errors.AsType[*file.Error](err)
	if !ok {
		return err
	}
	place := fmt.Sprintf("at column %d of the expression", at.Column+1)
	if at.Line > 1 {
		place = fmt.Sprintf("at line %d, column %d of the expression", at.Line, at.Column+1)
	}
	if meant := nearest(v.strangers[at.From]); meant != "" {
		return fmt.Errorf("%s %s; did you mean %q?", at.Message, place, meant)
	}
	return fmt.Errorf("%s %s", at.Message, place)
}

// nearest returns the name that was probably meant by word, or nothing.
func nearest(word string) string {
	const longest = 16 // no name is nearly as long
	if word == "" || len(word) > longest {
		return ""
	}
	best, distance := "", max(len(word)/3, 1)+1
	for _, name := range slices.Sorted(maps.Keys(environmentTypes)) {
		if d := levenshtein.ComputeDistance(word, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}
