package config

import "regexp"

// kind is what a YAML node is after resolution by the core schema (YAML
// 1.2.2, section 10.3.2): off, none and yes are strings.
type kind int

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindFloat
	kindString
	kindList
	kindMap
)

func (k kind) String() string {
	switch k {
	case kindNull:
		return "nothing"
	case kindBool:
		return "a boolean"
	case kindInt, kindFloat:
		return "a number"
	case kindString:
		return "a string"
	case kindList:
		return "a list"
	case kindMap:
		return "a map"
	}
	return "something else"
}

// node is one value of a document, aliases and merge keys resolved. Values
// behind an alias are shared, never copied.
type node struct {
	kind   kind
	pos    position
	text   string // of a scalar
	items  []*node
	fields []field
	// template is the text of a string before its variables were replaced.
	template string
	// secret marks a value that is never printed.
	secret bool
}

// field is one key of a map and its value.
type field struct {
	name  string
	pos   position
	value *node
	// repeated marks a key that the same map has above.
	repeated bool
}

func (n *node) scalar() bool { return n.kind != kindList && n.kind != kindMap }

var (
	nullText  = regexp.MustCompile(`^(null|Null|NULL|~|)$`)
	boolText  = regexp.MustCompile(`^(true|True|TRUE|false|False|FALSE)$`)
	intText   = regexp.MustCompile(`^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$`)
	floatText = regexp.MustCompile(`^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
)

// plainKind resolves a plain (unquoted) scalar.
func plainKind(text string) kind {
	switch {
	case nullText.MatchString(text):
		return kindNull
	case boolText.MatchString(text):
		return kindBool
	case intText.MatchString(text):
		return kindInt
	case floatText.MatchString(text):
		return kindFloat
	}
	return kindString
}
