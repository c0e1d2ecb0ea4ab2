package field

import (
	"net/http"
	"strings"
)

// Fold makes one name, in canonical form, of all those that a backend with a
// CGI heritage can't tell apart: it has "_" for "-" (RFC 3875 section 4.1.18).
func Fold(name string) string {
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}
