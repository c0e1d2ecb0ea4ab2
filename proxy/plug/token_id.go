package plug

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/token"
)

// idTemplate makes socket ids of claims.
type idTemplate []config.IDPart

// maxID bounds a socket id, in bytes: it stands in every log line that opens a
// session, and is a key of the registry.
const maxID = 256

// fill returns the socket id of a token's claims; without a template it is
// empty. Two clients have the same id only where all claims in it are the same.
func (t idTemplate) fill(claims map[string]any) (string, error) {
	var b strings.Builder
	for _, part := range t {
		if part.Claim == "" {
			b.WriteString(part.Text)
			continue
		}
		value, ok := token.Scalar(claims[part.Claim])
		if !ok || value == "" || !printable(value) {
			return "", &token.Invalid{Reason: "lacks a claim that names its owner"}
		}
		idEscapes.WriteString(&b, value)
	}
	if b.Len() > maxID {
		return "", &token.Invalid{Reason: "has an owner whose name is too long"}
	}
	return b.String(), nil
}

// idEscapes keeps a claim from reaching beyond its place in the template: with
// a plain colon the user "1:admin" could be taken for somebody else.
var idEscapes = strings.NewReplacer("%", "%25", ":", "%3A", "/", "%2F")

// printable says whether text is UTF-8 without control characters, and
// without those that only change how the rest is shown.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(c rune) bool { return c != ' ' && !unicode.IsPrint(c) })
}
