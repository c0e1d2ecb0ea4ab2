package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/stentproxy/stent/proxy/plug"
)

// parseQuery returns the query of r. Unlike URL.Query it refuses a malformed
// one: a filter that falls silently away would name other sessions than were
// meant.
func parseQuery(r *http.Request) (url.Values, *plug.Problem) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query is malformed")
	}
	return q, nil
}

// number reads a whole number of at least min; none is def.
func number(q url.Values, name string, min, def int) (int, *plug.Problem) {
	text := q.Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < min {
		return 0, badRequest(fmt.Sprintf("%s must be a whole number of at least %d", name, min))
	}
	return n, nil
}

// boolean reads true or false; none is false.
func boolean(q url.Values, name string) (bool, *plug.Problem) {
	text := q.Get(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest(name + " must be true or false")
	}
	return b, nil
}
