package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"
)

// Schema returns the JSON Schema of stent.yaml, for editors. It is made from
// the types, their tags, comments and defaults. It knows no names that the
// file itself defines, so that Parse finds more than a validator does.
func Schema() ([]byte, error) {
	texts, err := descriptions()
	if err != nil {
		return nil, fmt.Errorf("describe the keys: %w", err)
	}
	w := schemaWriter{texts: texts, done: make(map[reflect.Type]bool)}
	config := reflect.TypeFor[Config]()
	root := w.reflector(false).ReflectFromType(config)
	w.definitions = root.Definitions
	w.annotate(w.definitions[config.Name()], config, reflect.ValueOf(DefaultConfig()))
	w.definitions["Variable"] = &jsonschema.Schema{
		Type: "string", Pattern: variablePattern, Description: "Filled from the environment.",
	}
	for t, form := range forms {
		s := form(&w)
		s.Description = w.texts[t.Name()]
		w.definitions[t.Name()] = s
	}
	root.Title = "stent.yaml"
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(text, '\n'), nil
}

// variablePattern matches text that an environment variable fills: it may
// stand for any scalar.
const variablePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`

func reference(name string) *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/" + name} }

func fromEnvironment() *jsonschema.Schema { return reference("Variable") }

// forms gives the types with a YAML form of their own, the unmarshalers,
// their schemas.
var forms = map[reflect.Type]func(w *schemaWriter) *jsonschema.Schema{
	reflect.TypeFor[Duration](): func(*schemaWriter) *jsonschema.Schema {
		return either(
			text(`^([0-9]*(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`, "10s", "250ms"),
			&jsonschema.Schema{Const: 0},
			fromEnvironment(),
		)
	},
	reflect.TypeFor[Size](): func(*schemaWriter) *jsonschema.Schema {
		return either(
			text(`^[0-9]+(\.[0-9]+)? ?([kKmMgGtTpPeE]?[iI]?[bB]?)$`, "64KiB", "16MiB"),
			&jsonschema.Schema{Type: "integer", Minimum: "0"},
			fromEnvironment(),
		)
	},
	reflect.TypeFor[Percent](): func(*schemaWriter) *jsonschema.Schema {
		return either(text(`^[0-9]+(\.[0-9]*)?%$`, "50%"), fromEnvironment())
	},
	reflect.TypeFor[CIDR](): func(*schemaWriter) *jsonschema.Schema {
		return either(text(`^[0-9a-fA-F:.]+(/[0-9]+)?$`, "10.0.0.0/8"), fromEnvironment())
	},
	reflect.TypeFor[Base64](): func(*schemaWriter) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
	},
	reflect.TypeFor[Secret](): func(w *schemaWriter) *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "string"}, w.inline(reflect.TypeFor[secretFile]()))
	},
	reflect.TypeFor[Balance](): func(w *schemaWriter) *jsonschema.Schema {
		kinds := &jsonschema.Schema{Enum: anys(balanceKinds)}
		return either(kinds, w.inline(reflect.TypeFor[hashBalance]()), fromEnvironment())
	},
	reflect.TypeFor[Target](): func(w *schemaWriter) *jsonschema.Schema {
		url := &jsonschema.Schema{Type: "string", Examples: []any{"ws://10.0.0.1:4000"}}
		return either(url, w.inline(reflect.TypeFor[Target]()))
	},
	reflect.TypeFor[JWKS](): func(w *schemaWriter) *jsonschema.Schema {
		url := &jsonschema.Schema{Type: "string", Examples: []any{"https://issuer.example.com/.well-known/jwks.json"}}
		return either(url, w.inline(reflect.TypeFor[JWKS]()))
	},
	reflect.TypeFor[Plug]():    (*schemaWriter).plugs,
	reflect.TypeFor[Handler](): (*schemaWriter).handlers,
}

func text(pattern string, examples ...any) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: examples}
}

// schemaWriter adds to a reflected schema what the reflector does not know.
type schemaWriter struct {
	texts       map[string]string
	definitions jsonschema.Definitions
	done        map[reflect.Type]bool
}

// reflector makes schemas of types. An inline one holds the type itself,
// not a reference to it.
func (w *schemaWriter) reflector(inline bool) *jsonschema.Reflector {
	top := inline
	return &jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             inline,
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if reflect.PointerTo(t).Implements(reflect.TypeFor[unmarshaler]()) && !top {
				return reference(t.Name())
			}
			top = false
			return nil
		},
		LookupComment: w.describe,
	}
}

// describe is the comment of a type or field, which begins with the name of
// the key and not with Go's.
func (w *schemaWriter) describe(t reflect.Type, name string) string {
	if name == "" {
		return w.texts[t.Name()]
	}
	text := w.texts[t.Name()+"."+name]
	f, _ := t.FieldByName(name)
	if rest, ok := strings.CutPrefix(text, name); ok {
		return f.Tag.Get("yaml") + rest
	}
	return text
}

// inline is the schema of a type that has a second form beside it.
func (w *schemaWriter) inline(t reflect.Type) *jsonschema.Schema {
	s := w.reflector(true).ReflectFromType(t)
	s.Version = ""
	if t.Kind() == reflect.Struct {
		w.annotate(s, t, newValue(t).Elem())
	}
	if s.Items != nil && t.Elem().Kind() == reflect.Struct {
		w.annotate(s.Items, t.Elem(), newValue(t.Elem()).Elem())
	}
	return s
}

func either(forms ...*jsonschema.Schema) *jsonschema.Schema { return &jsonschema.Schema{AnyOf: forms} }

func anys(list []string) []any {
	values := make([]any, len(list))
	for i, s := range list {
		values[i] = s
	}
	return values
}

// plugs is the name of a plug, or a map of one name to its options.
func (w *schemaWriter) plugs() *jsonschema.Schema {
	names := slices.Sorted(maps.Keys(plugs))
	options := jsonschema.NewProperties()
	for _, name := range names {
		s := w.inline(plugs[name])
		goName := plugs[name].Name()
		s.Description = name + strings.TrimPrefix(w.texts[goName], goName)
		options.Set(name, s)
	}
	return either(&jsonschema.Schema{Enum: anys(names)}, single(&jsonschema.Schema{Properties: options, AdditionalProperties: jsonschema.FalseSchema}))
}

// handlers is the name of a handler, or a map of one name to its options.
func (w *schemaWriter) handlers() *jsonschema.Schema {
	options := jsonschema.NewProperties()
	rules := w.inline(reflect.TypeFor[RulesHandler]())
	rules.Description = rulesHandler + strings.TrimPrefix(w.texts["RulesHandler"], "RulesHandler")
	options.Set(rulesHandler, rules)
	for _, name := range laterHandlers {
		options.Set(name, &jsonschema.Schema{Not: &jsonschema.Schema{}, Description: notYet})
	}
	name := &jsonschema.Schema{Type: "string", Not: &jsonschema.Schema{Enum: anys(laterHandlers)}}
	return either(name, single(&jsonschema.Schema{Properties: options}))
}

// single makes s that of a map of exactly one key.
func single(s *jsonschema.Schema) *jsonschema.Schema {
	one := uint64(1)
	s.Type, s.MinProperties, s.MaxProperties = "object", &one, &one
	return s
}

// annotate adds enums, defaults, required keys and what is not supported yet
// to the schema of the struct type t, whose defaults are in v, and goes on
// with the types below it.
func (w *schemaWriter) annotate(s *jsonschema.Schema, t reflect.Type, v reflect.Value) {
	for _, k := range keysOf(t) {
		prop, ok := s.Properties.Get(k.name)
		if !ok {
			continue
		}
		f := v.Field(k.index)
		prop = w.property(k, prop)
		w.setDefault(k, prop, f)
		s.Properties.Set(k.name, prop)
		if k.required {
			s.Required = append(s.Required, k.name)
		}
		w.below(k.typ, f, prop)
	}
}

// below annotates the struct that a key holds, or those in its list or map.
func (w *schemaWriter) below(t reflect.Type, v reflect.Value, prop *jsonschema.Schema) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
		v = newValue(t).Elem()
	}
	if t.Kind() != reflect.Struct || w.done[t] {
		return
	}
	if def, ok := w.definitions[t.Name()]; ok && def.Properties != nil {
		w.done[t] = true
		w.annotate(def, t, v)
	} else if prop.Properties != nil {
		w.annotate(prop, t, v)
	}
}

// property returns the schema of a key by what its tags say.
func (w *schemaWriter) property(k key, prop *jsonschema.Schema) *jsonschema.Schema {
	text := prop.Description
	switch {
	case k.later:
		prop = nothing(k.typ)
		text += " (" + notYet + ")"
	case k.enum != nil:
		names := slices.DeleteFunc(slices.Clone(k.enum), func(s string) bool { return slices.Contains(k.laterValues, s) })
		prop = either(&jsonschema.Schema{Enum: anys(names)}, fromEnvironment())
		for _, later := range k.laterValues {
			text += " (" + later + ": " + notYet + ")"
		}
	case prop.Type == "integer" || prop.Type == "number":
		prop = either(&jsonschema.Schema{Type: prop.Type, Minimum: "0"}, fromEnvironment())
	case prop.Type == "boolean":
		prop = either(&jsonschema.Schema{Type: prop.Type}, fromEnvironment())
	case prop.Ref != "":
		// A reference may stand beside a description of its own.
		prop = &jsonschema.Schema{Ref: prop.Ref}
	}
	prop.Description = text
	return prop
}

// nothing is the schema of a key that may only ask for nothing yet.
func nothing(t reflect.Type) *jsonschema.Schema {
	none := uint64(0)
	switch t.Kind() {
	case reflect.Bool:
		return &jsonschema.Schema{Const: false}
	case reflect.String:
		return &jsonschema.Schema{Enum: []any{""}}
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", MaxItems: &none}
	case reflect.Pointer:
		return &jsonschema.Schema{Not: &jsonschema.Schema{}}
	default:
		return &jsonschema.Schema{Enum: []any{0, "0"}}
	}
}

// setDefault says what a key that is left out means, where that is a scalar
// or a list.
func (w *schemaWriter) setDefault(k key, prop *jsonschema.Schema, v reflect.Value) {
	if k.required || k.later || nilable(v.Kind()) && v.IsNil() || v.Type() == reflect.TypeFor[Secret]() {
		return
	}
	value := renderer{}.value(v, "")
	if _, nested := value.(map[string]any); !nested {
		prop.Default = value
	}
}
