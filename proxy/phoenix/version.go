package phoenix

import (
	"net/url"
	"strings"
)

// VersionOf returns the version that a socket's query asks for with vsn;
// without it that is 1.0.0. The server refuses what it does not know. Of a
// parameter that comes twice the last counts, and only & separates, as Plug
// has it.
func VersionOf(query string) Version {
	v := V1
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if key, err := url.QueryUnescape(key); err != nil || key != "vsn" {
			continue
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			continue
		}
		v = V1
		if strings.HasPrefix(value, "2.") {
			v = V2
		}
	}
	return v
}
