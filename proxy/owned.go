package proxy

import (
	"maps"
	"net/http"
	"slices"

	"github.com/stentproxy/stent/proxy/field"
	"github.com/stentproxy/stent/proxy/plug"
)

// ownedFields are the header fields that backends may believe, because some
// plug sets them: no client's own go up, on any route. Names are folded.
type ownedFields struct {
	// set are dropped at the door, so that no plug takes a client's for
	// another plug's.
	set map[string]bool
	// withheld are dropped on the way up. A plug looks in them for what the
	// client itself says, such as its origin, and must not find it gone because
	// a plug of another route sets it.
	withheld []string
	// believed are dropped at the door unless a trusted proxy sends them.
	believed map[string]bool
}

func ownedBy(pipelines []plug.Pipeline) ownedFields {
	o := ownedFields{set: make(map[string]bool), believed: make(map[string]bool)}
	reads := map[string]bool{"Content-Type": true} // of a long poll
	for _, p := range pipelines {
		for _, name := range p.Sets() {
			o.set[field.Fold(name)] = true
		}
		for _, name := range p.Believes() {
			o.believed[field.Fold(name)] = true
		}
		for _, name := range p.Reads() {
			reads[field.Fold(name)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(reads)) {
		if o.set[name] {
			delete(o.set, name)
			o.withheld = append(o.withheld, name)
		}
	}
	return o
}

// withhold deletes fields by their folded names.
func withhold(h http.Header, names []string) {
	if len(names) > 0 {
		maps.DeleteFunc(h, func(name string, _ []string) bool { return slices.Contains(names, field.Fold(name)) })
	}
}
