package config

import "slices"

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
	var list []string
	eachKey(func(path string, k key) {
		for _, value := range k.laterValues {
			list = append(list, path+": "+value)
		}
		if k.later {
			list = append(list, path)
		}
	})
	for _, name := range laterHandlers {
		list = append(list, "routes[].handlers[]."+name)
	}
	slices.Sort(list)
	return list
}
