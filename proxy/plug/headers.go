package plug

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
)

// headers sets and removes header fields of what is sent up and of what is
// sent back.
func headers(c *config.HeadersPlug, _ Env) (Compiled, error) {
	up, err := editor(c.Request)
	if err != nil {
		return Compiled{}, config.Within("request", err)
	}
	down, err := editor(c.Response)
	if err != nil {
		return Compiled{}, config.Within("response", err)
	}
	wrap := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := From(r)
			info.EditRequest(up)
			info.EditResponse(down)
			next.ServeHTTP(w, r)
		})
	}
	return Compiled{Wrap: wrap, Sets: slices.Sorted(maps.Keys(c.Request.Set))}, nil
}

// editor returns the function that makes the change: first it removes, with
// an "_" in the name or a "-", then it sets.
func editor(c config.HeaderChange) (func(http.Header), error) {
	set := make(map[string]string, len(c.Set))
	for name, value := range c.Set {
		if err := checkField(name); err != nil {
			return nil, config.Within("set."+name, err)
		}
		if err := checkFieldValue(name, value); err != nil {
			return nil, config.Within("set."+name, err)
		}
		set[http.CanonicalHeaderKey(name)] = value
	}
	remove := make(map[string]bool, len(c.Remove))
	for i, name := range c.Remove {
		if err := checkField(name); err != nil {
			return nil, config.Within(fmt.Sprintf("remove[%d]", i), err)
		}
		remove[field.Fold(name)] = true
	}
	return func(h http.Header) {
		if len(remove) > 0 {
			maps.DeleteFunc(h, func(name string, _ []string) bool { return remove[field.Fold(name)] })
		}
		for name, value := range set {
			h[name] = []string{value}
		}
	}, nil
}
