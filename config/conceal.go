package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// conceal stars out the secrets in the lines of the file, so that a problem
// may quote any of them. It finds them by the keys that they stand behind, also
// misspelt ones, before anything is decoded: quotes and escapes make the text
// in the file another than the value. root is nil where the file is no YAML.
func (s *source) conceal(root *node) {
	defer func() {
		for i, line := range s.lines {
			s.lines[i] = withoutUserinfo(line)
		}
	}()
	if root == nil {
		for i, line := range s.lines {
			s.lines[i] = guess(line)
		}
		return
	}
	c := concealer{seen: make(map[typed]bool)}
	for _, line := range s.lines {
		c.begins = append(c.begins, len(c.text))
		c.text = append(c.text, []rune(line+"\n")...)
	}
	c.value(root, reflect.TypeFor[Config]())
	s.lines = strings.Split(strings.TrimSuffix(string(c.text), "\n"), "\n")
}

// concealer goes through the values of a file, and the types that they are
// meant for.
type concealer struct {
	text   []rune
	begins []int // where the lines begin in text
	seen   map[typed]bool
}

type typed struct {
	n *node
	t reflect.Type
}

// unknown is the type of what has none.
var unknown = reflect.TypeFor[any]()

// value conceals what is secret in n. Where a list or a map was wanted, a
// value of another kind is taken for one of its entries.
func (c *concealer) value(n *node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if c.seen[typed{n, t}] {
		return
	}
	c.seen[typed{n, t}] = true
	switch {
	case t == reflect.TypeFor[Secret]():
		c.secret(n)
	case t.Kind() == reflect.Slice && n.kind == kindList:
		c.entries(n, t.Elem())
	case t.Kind() == reflect.Slice:
		c.value(n, t.Elem())
	case n.kind == kindMap:
		c.table(n, t)
	case t.Kind() == reflect.Map:
		c.value(n, t.Elem())
	default:
		c.entries(n, t)
	}
}

func (c *concealer) entries(n *node, t reflect.Type) {
	for _, entry := range n.items {
		c.value(entry, t)
	}
}

// table conceals what is secret in the map n. A key that is none of t's is
// taken for the one that was probably meant.
func (c *concealer) table(n *node, t reflect.Type) {
	names, types := keyTypes(t)
	for _, f := range n.fields {
		meant, ok := types[f.name]
		switch {
		case ok:
		case t.Kind() == reflect.Map && t.Elem().Kind() != reflect.String:
			meant = t.Elem()
		case credential.MatchString(f.name):
			c.hide(f.value)
			continue
		default:
			if meant, ok = types[suggest(f.name, names)]; !ok {
				meant = unknown
			}
		}
		c.value(f.value, meant)
	}
}

// keyTypes lists the keys that a map may have which is decoded to t.
func keyTypes(t reflect.Type) ([]string, map[string]reflect.Type) {
	switch {
	case t == reflect.TypeFor[Plug]():
		return slices.Sorted(maps.Keys(plugs)), plugs
	case t.Kind() != reflect.Struct:
		return nil, nil
	}
	keys := keysOf(t)
	types := make(map[string]reflect.Type, len(keys))
	for _, k := range keys {
		types[k.name] = k.typ
	}
	return names(keys), types
}

// secret conceals a Secret. The name of its file is none.
func (c *concealer) secret(n *node) {
	if n.kind != kindMap {
		c.hide(n)
		return
	}
	for _, f := range n.fields {
		if f.name != "file" {
			c.hide(f.value)
		}
	}
}

// bareVariable matches text that holds nothing but the name of a variable.
var bareVariable = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}$`)

// hide conceals all scalars in n.
func (c *concealer) hide(n *node) {
	if n.secret || n.kind == kindNull || bareVariable.MatchString(n.text) {
		return
	}
	n.secret = true
	for _, entry := range n.items {
		c.hide(entry)
	}
	for _, f := range n.fields {
		c.hide(f.value)
	}
	if n.text == "" {
		return
	}
	from, to := c.extent(c.content(c.begins[n.pos.line-1]+n.pos.column-1), n.text)
	for i := from; i < to; i++ {
		if c.text[i] != '\n' {
			c.text[i] = '*'
		}
	}
}

// content is where the scalar begins that has a tag or an anchor at i, or
// nothing of the kind.
func (c *concealer) content(i int) int {
	for i < len(c.text)-1 {
		switch r := c.text[i]; {
		case blank(r):
			i++
		case r == '#':
			i = c.find(i, func(r rune) bool { return r == '\n' })
		case r == '!', r == '&':
			i = c.find(i, blank)
		default:
			return i
		}
	}
	return i
}

// extent is the part of the file that holds the characters of the scalar at i,
// whose value is text.
func (c *concealer) extent(i int, text string) (from, to int) {
	switch first := c.text[i]; first {
	case '"', '\'':
		return i + 1, c.closing(i+1, first)
	case '|', '>':
		i = c.find(i, func(r rune) bool { return r == '\n' })
	}
	// Unless it is quoted a scalar differs from its value in blanks only.
	from, to = i, i
	for _, r := range text {
		if blank(r) {
			continue
		}
		to = c.find(to, func(r rune) bool { return !blank(r) })
		if to == len(c.text) || c.text[to] != r {
			return from, len(c.text) // rather too much than a part of it
		}
		to++
	}
	return from, to
}

// blank is what YAML may leave out of a value, or put another in its place.
func blank(r rune) bool { return strings.ContainsRune(" \t\n\u0085\u2028\u2029", r) }

// closing is where the quotes end that have been opened before i.
func (c *concealer) closing(i int, quote rune) int {
	for i < len(c.text) {
		switch r := c.text[i]; {
		case r == '\\' && quote == '"', r == '\'' && quote == r && c.text[i+1] == r:
			i += 2
		case r == quote:
			return i
		default:
			i++
		}
	}
	return len(c.text)
}

// find is the first place from i on with such a character.
func (c *concealer) find(i int, is func(rune) bool) int {
	for i < len(c.text) && !is(c.text[i]) {
		i++
	}
	return i
}

// secretText is a literal after a key that sounds like a secret.
var secretText = regexp.MustCompile(`(?i)((?:secret|token|password)["']?:[ \t]*)("(?:[^"\\]|\\.?)*"?|'(?:[^']|'')*'?|[^\s,{}\[\]"'$][^\s,}]*)`)

// guess conceals what may be a secret in a line of a file that is no YAML,
// whose keys are not known.
func guess(line string) string {
	return secretText.ReplaceAllStringFunc(line, func(match string) string {
		key := secretText.FindStringSubmatch(match)[1]
		return key + stars(match[len(key):])
	})
}

// userinfo is what a URL has of a user (RFC 3986 section 3.2.1), and all else
// before an "@": a password may hold what should have been escaped. No key
// takes a URL with it, so that it may be meant for any.
var userinfo = regexp.MustCompile(`(:\\?/\\?/)([^\s"',\]}]*)@`)

func withoutUserinfo(line string) string {
	return userinfo.ReplaceAllStringFunc(line, func(match string) string {
		parts := userinfo.FindStringSubmatch(match)
		return parts[1] + stars(parts[2]) + "@"
	})
}

func stars(text string) string { return strings.Repeat("*", utf8.RuneCountInString(text)) }
