package config

import (
	"reflect"
	"slices"
)

// notYet is what is said of keys and names of the contract that nothing
// stands behind. They are never ignored in silence; a key may be there as
// long as it asks for nothing.
const notYet = "not supported yet"

// laterHandlers are such names.
var laterHandlers = []string{"validate", "wasm", "webhook"}

// Unsupported lists what the contract has and this version refuses: the
// paths of keys, with [] for the entries of a list and * for the names in a
// map, the values of a key as in "routes[].protocol: phoenix", and the names
// of handlers. Routes are the same in scopes.
func Unsupported() []string {
	type place struct {
		t    reflect.Type
		path string
	}
	var list []string
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
				for _, value := range k.laterValues {
					list = append(list, path+": "+value)
				}
				if k.later {
					list = append(list, path)
				} else {
					queue = append(queue, place{k.typ, path})
				}
			}
		default:
		}
	}
	for _, name := range laterHandlers {
		list = append(list, "routes[].handlers[]."+name)
	}
	slices.Sort(list)
	return list
}
