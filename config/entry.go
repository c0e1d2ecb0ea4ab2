package config

import (
	"maps"
	"reflect"
	"slices"
)

// plugs names the plugs that there are and the types of their options.
var plugs = map[string]reflect.Type{
	"accepts":        reflect.TypeFor[AcceptsPlug](),
	"basic_auth":     reflect.TypeFor[BasicAuthPlug](),
	"csrf":           reflect.TypeFor[CSRFPlug](),
	"forward_auth":   reflect.TypeFor[ForwardAuthPlug](),
	"head":           reflect.TypeFor[HeadPlug](),
	"headers":        reflect.TypeFor[HeadersPlug](),
	"ip":             reflect.TypeFor[IPPlug](),
	"jwt":            reflect.TypeFor[JWTPlug](),
	"limit":          reflect.TypeFor[LimitPlug](),
	"logger":         reflect.TypeFor[LoggerPlug](),
	"origin":         reflect.TypeFor[OriginPlug](),
	"rate":           reflect.TypeFor[RatePlug](),
	"redirect":       reflect.TypeFor[RedirectPlug](),
	"request_id":     reflect.TypeFor[RequestIDPlug](),
	"secure_headers": reflect.TypeFor[SecureHeadersPlug](),
	"session":        reflect.TypeFor[SessionPlug](),
	"static":         reflect.TypeFor[StaticPlug](),
}

// rulesHandler is the one handler whose options have a type.
const rulesHandler = "rules"

// named takes an entry apart that is written as a bare name or as a map of
// one name to its options. The value of a bare name is nil.
func (d *decoder) named(n *node, path, what string) (f field, at string, ok bool) {
	switch {
	case n.kind == kindString && n.text != "":
		return field{name: n.text, pos: n.pos}, path, true
	case n.kind == kindMap && len(n.fields) == 1:
		f = n.fields[0]
		return f, join(path, f.name), true
	case n.kind == kindMap && len(n.fields) > 1:
		d.fail(n, path, "%d names in one entry; begin each %s with a dash", len(n.fields), what)
	default:
		d.mismatch(n, path, "the name of a "+what+" or {name: options}")
	}
	return field{}, path, false
}

func (p *Plug) decode(d *decoder, n *node, path string) {
	f, at, ok := d.named(n, path, "plug")
	if !ok {
		return
	}
	p.Name = f.name
	t, known := plugs[f.name]
	if !known {
		e := d.failAt(f.pos, at, "unknown plug %q", f.name)
		e.Suggestion = suggest(f.name, slices.Sorted(maps.Keys(plugs)))
		return
	}
	options := newValue(t)
	if f.value != nil {
		d.field(f, options.Elem(), at)
	}
	p.Config = options.Interface()
}

func (h *Handler) decode(d *decoder, n *node, path string) {
	f, at, ok := d.named(n, path, "handler")
	if !ok {
		return
	}
	h.Name = f.name
	switch {
	case slices.Contains(laterHandlers, f.name):
		d.failAt(f.pos, at, "handler %s is %s", f.name, notYet)
	case f.name == rulesHandler:
		rules := new(RulesHandler)
		if f.value != nil {
			d.field(f, reflect.ValueOf(rules).Elem(), at)
		}
		h.Config = rules
	case f.value != nil:
		d.note(f, at)
		h.Config = d.raw(f.value, at)
	}
}

// raw turns a node into map[string]any, []any, string, int, float64, bool or
// nil: the options of a handler that this package does not know.
func (d *decoder) raw(n *node, path string) any {
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.fail(n, path, "aliases make more than %d values of this file", maxValues)
		}
		return nil
	}
	switch n.kind {
	case kindNull:
		return nil
	case kindBool:
		return n.text[0] == 't' || n.text[0] == 'T'
	case kindInt:
		if i, err := parseInt(n.text); err == nil {
			return int(i)
		}
		d.fail(n, path, "%s is out of range", n.shown())
	case kindFloat:
		var f float64
		d.float(n, reflect.ValueOf(&f).Elem(), path)
		return f
	case kindString:
		if n = d.expanded(n, path); n != nil {
			return n.text
		}
	case kindList:
		list := make([]any, len(n.items))
		for i, entry := range n.items {
			at := item(path, i)
			d.source.keys[at] = entry.pos
			list[i] = d.raw(entry, at)
		}
		return list
	case kindMap:
		table := make(map[string]any, len(n.fields))
		for _, f := range d.unique(n, path) {
			at := join(path, f.name)
			d.note(f, at)
			table[f.name] = d.raw(f.value, at)
		}
		return table
	}
	return nil
}

func (t *Target) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case kindString:
		t.URL = n.text
	case kindMap:
		d.structure(n, reflect.ValueOf(t).Elem(), path)
	default:
		d.mismatch(n, path, "a URL or {url, weight, name}")
		return
	}
	if t.Name == "" {
		t.Name = t.DefaultName()
	}
}

// balanceKinds are those written as a word; hash is written with its key.
var balanceKinds = []string{
	string(BalanceLeastSessions), string(BalanceRoundRobin), string(BalanceRandom), string(BalanceP2C),
}

// hashBalance is the second form of a Balance.
type hashBalance struct {
	// Hash is id, ip, path, query:NAME, header:NAME or cookie:NAME.
	Hash string `yaml:"hash" required:"true"`
}

func (b *Balance) decode(d *decoder, n *node, path string) {
	switch {
	case n.kind == kindMap:
		var by hashBalance
		d.structure(n, reflect.ValueOf(&by).Elem(), path)
		*b = Balance{Kind: BalanceHash, Key: by.Hash}
	case n.kind != kindString:
		d.mismatch(n, path, "a kind of balance or {hash: key}")
	case slices.Contains(balanceKinds, n.text):
		*b = Balance{Kind: BalanceKind(n.text)}
	case n.text == string(BalanceHash):
		d.fail(n, path, "hash needs a key, such as {hash: ip}")
	default:
		e := d.fail(n, path, "unknown balance %q; want %s, or {hash: key}", n.text, oneOf(balanceKinds))
		e.Suggestion = suggest(n.text, balanceKinds)
	}
}
