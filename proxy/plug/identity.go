package plug

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// idPattern is the template of a socket id: text, and names in braces that
// stand for what is known of the client.
type idPattern []idPiece

type idPiece struct{ text, name string }

// maxIdentity bounds a socket id, in bytes: it is in the registry and in log
// lines.
const maxIdentity = 256

// sessionName is the name of the session plug's session in a pattern.
const sessionName = "session"

// parseIDPattern reads a pattern. Known says which names there are.
func parseIDPattern(s string, known func(name string) error) (idPattern, error) {
	var p idPattern
	named := false
	for s != "" {
		text, rest, open := strings.Cut(s, "{")
		if strings.Contains(text, "}") {
			return nil, errors.New("a } without its {")
		}
		if text != "" {
			p = append(p, idPiece{text: text})
		}
		if !open {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, errors.New("a { without its }")
		}
		if name != sessionName {
			if err := known(name); err != nil {
				return nil, err
			}
		}
		p, named, s = append(p, idPiece{name: name}), true, after
	}
	if len(p) > 0 && !named {
		return nil, errors.New("names nothing in braces, so that all clients would be one")
	}
	return p, nil
}

// fill makes an id. Each value has to be there, and stands for itself: what
// separates the parts of ids is escaped in it.
func (p idPattern) fill(value func(name string) string) (string, error) {
	var b strings.Builder
	for _, piece := range p {
		if piece.name == "" {
			b.WriteString(piece.text)
			continue
		}
		v := value(piece.name)
		if v == "" || !utf8.ValidString(v) || strings.ContainsFunc(v, func(c rune) bool { return c != ' ' && !unicode.IsPrint(c) }) {
			return "", fmt.Errorf("%s is missing, or no printable text", piece.name)
		}
		_, _ = idSeparators.WriteString(&b, v)
	}
	if b.Len() > maxIdentity {
		return "", fmt.Errorf("the id would be longer than %d bytes", maxIdentity)
	}
	return b.String(), nil
}

var idSeparators = strings.NewReplacer("%", "%25", ":", "%3A", "/", "%2F")
