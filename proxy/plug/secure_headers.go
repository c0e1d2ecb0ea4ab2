package plug

import (
	"maps"
	"net/http"

	"github.com/stentproxy/stent/config"
)

// defaultSecureHeaders are response fields that make browsers careful.
var defaultSecureHeaders = map[string]string{
	"Content-Security-Policy":           "base-uri 'self'; frame-ancestors 'self';",
	"Referrer-Policy":                   "strict-origin-when-cross-origin",
	transportSecurity:                   "max-age=31536000",
	"X-Content-Type-Options":            "nosniff",
	"X-Frame-Options":                   "SAMEORIGIN",
	"X-Permitted-Cross-Domain-Policies": "none",
}

// transportSecurity makes browsers stay with https (HSTS). Without TLS it must
// not be sent (RFC 6797 section 7.2).
const transportSecurity = "Strict-Transport-Security"

// secureHeaders adds response fields that browsers honour, where the answer
// does not have them: a backend that sets its own policy knows better.
func secureHeaders(c *config.SecureHeadersPlug, _ Env) (Compiled, error) {
	fields := maps.Clone(defaultSecureHeaders)
	for name, value := range c.Set {
		if err := checkField(name); err != nil {
			return Compiled{}, config.Within("set."+name, err)
		}
		if err := checkFieldValue(name, value); err != nil {
			return Compiled{}, config.Within("set."+name, err)
		}
		name = http.CanonicalHeaderKey(name)
		if value == "" {
			delete(fields, name)
			continue
		}
		fields[name] = value
	}
	adding := func(fields map[string]string) func(http.Header) {
		return func(h http.Header) {
			for name, value := range fields {
				if _, ok := h[name]; !ok {
					h[name] = []string{value}
				}
			}
		}
	}
	secure := adding(fields)
	fields = maps.Clone(fields)
	delete(fields, transportSecurity)
	open := adding(fields)
	return Compiled{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info := From(r)
			if info.Scheme == "https" {
				info.EditResponse(secure)
			} else {
				info.EditResponse(open)
			}
			next.ServeHTTP(w, r)
		})
	}}, nil
}
