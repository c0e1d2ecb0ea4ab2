package plug

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/field"
)

// formats are the short names of media types.
var formats = map[string][]string{
	"html": {"text/html", "application/xhtml+xml"},
	"json": {"application/json"},
	"text": {"text/plain"},
}

// accepts refuses a request whose Accept field (RFC 9110 section 12.5.1)
// admits none of the formats, with 406.
func accepts(c *config.AcceptsPlug, _ Env) (Compiled, error) {
	var types []string
	for i, name := range *c {
		if known, ok := formats[name]; ok {
			types = append(types, known...)
			continue
		}
		full, _, err := mime.ParseMediaType(name)
		if err != nil || strings.Count(full, "/") != 1 || strings.Contains(full, "*") {
			return Compiled{}, config.Within(fmt.Sprintf("[%d]", i), fmt.Errorf("%q is neither html, json, text nor a media type", name))
		}
		types = append(types, full)
	}
	if len(types) == 0 {
		return Compiled{}, fmt.Errorf("names no format, so that nothing could pass")
	}
	refusal := &Problem{
		Status: http.StatusNotAcceptable,
		Detail: "this resource is served as " + strings.Join(types, ", "),
	}
	return Compiled{Reads: []string{"Accept"}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !acceptable(r.Header["Accept"], types) {
				refusal.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}

// acceptable says whether the Accept field lines admit one of types. No
// field, or an empty one, admits everything.
func acceptable(lines []string, types []string) bool {
	ranges := parseAccept(lines)
	if len(ranges) == 0 {
		return true
	}
	for _, t := range types {
		best := mediaRange{specificity: -1}
		for _, r := range ranges {
			if r.matches(t) && r.specificity > best.specificity {
				best = r
			}
		}
		if best.specificity >= 0 && best.weight > 0 {
			return true
		}
	}
	return false
}

// mediaRange is one element of an Accept field.
type mediaRange struct {
	pattern string
	// specificity is 0 for */*, 1 for text/*, 2 for text/html: the most
	// specific range that matches a type decides about it.
	specificity int
	weight      float64
}

func (m mediaRange) matches(mediaType string) bool {
	switch m.specificity {
	case 0:
		return true
	case 1:
		return strings.HasPrefix(mediaType, strings.TrimSuffix(m.pattern, "*"))
	}
	return m.pattern == mediaType
}

// parseAccept reads the elements of an Accept field; malformed ones admit
// nothing and are left out. Parameters other than q are ignored, as browsers
// send none that choose a representation.
func parseAccept(lines []string) []mediaRange {
	var ranges []mediaRange
	for element := range field.Elements(lines) {
		pattern, params, _ := strings.Cut(element, ";")
		pattern = strings.ToLower(strings.TrimSpace(pattern))
		major, minor, ok := strings.Cut(pattern, "/")
		if !ok || major == "" || minor == "" || major == "*" && minor != "*" {
			continue
		}
		m := mediaRange{pattern: pattern, specificity: 2, weight: 1}
		switch {
		case major == "*":
			m.specificity = 0
		case minor == "*":
			m.specificity = 1
		}
		for param := range strings.SplitSeq(params, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			if !strings.EqualFold(name, "q") {
				continue
			}
			if q, err := strconv.ParseFloat(value, 64); err == nil {
				m.weight = q
			}
		}
		ranges = append(ranges, m)
	}
	return ranges
}
