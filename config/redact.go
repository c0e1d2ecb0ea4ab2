package config

import (
	"reflect"
	"regexp"
)

// Redacted renders the configuration as it is in force, defaults included,
// in the maps, lists, strings, numbers and booleans that stand in a file.
// Secrets, credentials in headers and the options of handlers that this
// package does not know are replaced; what came from an environment variable
// is shown as the variable.
func (c *Config) Redacted() map[string]any {
	r := renderer{source: c.source}
	return r.structure(reflect.ValueOf(c).Elem(), "")
}

// renderer turns values back into what stands in a file.
type renderer struct{ source *source }

// credential matches the names of headers, and of keys that stent does not
// know, whose values are secret.
var credential = regexp.MustCompile(`(?i)auth|cookie|token|secret|key|password|credential`)

func (r renderer) value(v reflect.Value, path string) any {
	if secret, ok := v.Interface().(Secret); ok {
		return secret.String()
	}
	if r.source != nil {
		if text, ok := r.source.templates[path]; ok {
			return text
		}
	}
	switch v := v.Interface().(type) {
	case Duration:
		return v.String()
	case Size:
		return v.String()
	case Percent:
		return v.String()
	case CIDR:
		return v.String()
	case Base64:
		return v.String()
	case Balance:
		if v.Kind == BalanceHash {
			return map[string]any{"hash": v.Key}
		}
		return string(v.Kind)
	case Plug:
		return r.plug(v, path)
	case Handler:
		return r.handler(v, path)
	}
	switch v.Kind() {
	case reflect.Struct:
		return r.structure(v, path)
	case reflect.Pointer:
		return r.value(v.Elem(), path)
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = r.value(v.Index(i), item(path, i))
		}
		return list
	case reflect.Map:
		return r.table(v, path)
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Int:
		return v.Int()
	case reflect.Float64:
		return v.Float()
	default:
		return nil
	}
}

// structure leaves out what is not there and what is not supported yet.
func (r renderer) structure(v reflect.Value, path string) map[string]any {
	table := make(map[string]any)
	for _, k := range keysOf(v.Type()) {
		f := v.Field(k.index)
		if k.later || nilable(f.Kind()) && f.IsNil() {
			continue
		}
		table[k.name] = r.value(f, join(path, k.name))
	}
	return table
}

func nilable(k reflect.Kind) bool {
	return k == reflect.Pointer || k == reflect.Slice || k == reflect.Map
}

func (r renderer) table(v reflect.Value, path string) map[string]any {
	table := make(map[string]any, v.Len())
	for iter := v.MapRange(); iter.Next(); {
		name := iter.Key().String()
		if v.Type().Elem().Kind() == reflect.String && credential.MatchString(name) {
			table[name] = redacted
			continue
		}
		table[name] = r.value(iter.Value(), join(path, name))
	}
	return table
}

// plug renders a plug by its bare name where its options are the defaults.
func (r renderer) plug(p Plug, path string) any {
	t, known := plugs[p.Name]
	if !known || reflect.DeepEqual(p.Config, newValue(t).Interface()) {
		return p.Name
	}
	return map[string]any{p.Name: r.value(reflect.ValueOf(p.Config), join(path, p.Name))}
}

func (r renderer) handler(h Handler, path string) any {
	switch options := h.Config.(type) {
	case nil:
		return h.Name
	case *RulesHandler:
		return map[string]any{h.Name: r.rules(*options, join(path, h.Name))}
	default:
		return map[string]any{h.Name: redacted}
	}
}

// rules leaves out the results that a rule does not have.
func (r renderer) rules(rules RulesHandler, path string) []any {
	list := make([]any, len(rules))
	for i, rule := range rules {
		table := r.structure(reflect.ValueOf(rule), item(path, i))
		for key, value := range table {
			if value == "" && key != "reply_text" && key != "forward_text" && key != "reply_binary" || value == false {
				delete(table, key)
			}
		}
		list[i] = table
	}
	return list
}
