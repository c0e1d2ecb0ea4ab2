// Package field reads the values of HTTP fields.
package field

import (
	"iter"
	"net/textproto"
	"strings"
)

// Elements yields the elements of a list field (RFC 9110 section 5.6.1) that
// came in these lines, without the spaces around them and without the empty
// ones. A comma in a quoted string separates, too: it is for fields of tokens.
func Elements(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for element := range strings.SplitSeq(line, ",") {
				if element = textproto.TrimString(element); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}
