package plug

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stentproxy/stent/config"
)

// idPattern is the template of a socket id: text, and names in braces that
// stand for what is known of the client.
type idPattern []config.IDPart

// maxID bounds a socket id, in bytes: it stands in every log line that opens a
// session, and is a key of the registry.
const maxID = 256

// sessionName is the name of the session plug's session in a pattern.
const sessionName = "session"

// parseIDPattern reads a pattern. Known says which names there are beside the
// session's.
func parseIDPattern(s string, known func(name string) error) (idPattern, error) {
	parts, err := config.ParseIDTemplate(s)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if part.Name == "" || part.Name == sessionName {
			continue
		}
		if err := known(part.Name); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// fill makes an id. Each value has to be there, and stands for itself: what
// separates the parts of ids is escaped in it, for with a plain colon the user
// "1:admin" could be taken for somebody else.
func (p idPattern) fill(value func(name string) string) (string, error) {
	var b strings.Builder
	for _, part := range p {
		if part.Name == "" {
			b.WriteString(part.Text)
			continue
		}
		v := value(part.Name)
		if v == "" || !printable(v) {
			return "", fmt.Errorf("%s is missing, or no printable text", part.Name)
		}
		_, _ = idSeparators.WriteString(&b, v)
	}
	if b.Len() > maxID {
		return "", fmt.Errorf("the id would be longer than %d bytes", maxID)
	}
	return b.String(), nil
}

var idSeparators = strings.NewReplacer("%", "%25", ":", "%3A", "/", "%2F")

// printable says whether text is UTF-8 without control characters, and
// without those that only change how the rest is shown.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(c rune) bool { return c != ' ' && !unicode.IsPrint(c) })
}
