package config

import (
	"reflect"
	"strings"
	"sync"
)

// key is what the tags of a struct's field say of one YAML key:
//
//	yaml:"name"       its name; "-" for what is not in the file
//	enum:"a,b"        the strings it may hold; an empty one means "not set"
//	later:"true"      the key belongs to a later version
//	later:"a,b"       these of its values do
//	path:"true"       a file, relative to the folder of the configuration
//	required:"true"   the key has no default; for the schema
type key struct {
	name  string
	index int
	typ   reflect.Type
	enum  []string
	later bool
	// laterValues are those of enum that are refused for now.
	laterValues []string
	path        bool
	required    bool
}

// structures remembers keysOf for each type.
var structures sync.Map

// keysOf lists the keys of a struct type, in the order of its fields.
func keysOf(t reflect.Type) []key {
	if keys, ok := structures.Load(t); ok {
		return keys.([]key)
	}
	var keys []key
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		k := key{
			name:     name,
			index:    i,
			typ:      f.Type,
			path:     f.Tag.Get("path") == "true",
			required: f.Tag.Get("required") == "true",
		}
		if enum, ok := f.Tag.Lookup("enum"); ok {
			k.enum = strings.Split(enum, ",")
		}
		switch later := f.Tag.Get("later"); later {
		case "":
		case "true":
			k.later = true
		default:
			k.laterValues = strings.Split(later, ",")
		}
		keys = append(keys, k)
	}
	structures.Store(t, keys)
	return keys
}

func names(keys []key) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.name
	}
	return list
}

// eachKey visits the keys of every type that stands in a file once, by its
// shortest path. Plugs are in endpoint[] alone.
func eachKey(visit func(path string, k key)) {
	type place struct {
		t    reflect.Type
		path string
	}
	seen := make(map[reflect.Type]bool)
	// Breadth first, so that each type is named by its shortest path.
	queue := []place{{reflect.TypeFor[Config](), ""}}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		switch at.t.Kind() {
		case reflect.Pointer:
			queue = append(queue, place{at.t.Elem(), at.path})
		case reflect.Slice:
			queue = append(queue, place{at.t.Elem(), at.path + "[]"})
		case reflect.Map:
			queue = append(queue, place{at.t.Elem(), at.path + ".*"})
		case reflect.Struct:
			if seen[at.t] {
				continue
			}
			seen[at.t] = true
			for _, k := range keysOf(at.t) {
				path := join(at.path, k.name)
				visit(path, k)
				if !k.later {
					queue = append(queue, place{k.typ, path})
				}
			}
			switch at.t {
			case reflect.TypeFor[Plug]():
				for name, t := range plugs {
					queue = append(queue, place{t, join(at.path, name)})
				}
			case reflect.TypeFor[Handler]():
				queue = append(queue, place{reflect.TypeFor[RulesHandler](), join(at.path, rulesHandler)})
			}
		default:
		}
	}
}
