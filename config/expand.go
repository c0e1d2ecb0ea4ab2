package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} and ${NAME:-default} in text by what lookup gives,
// and $$ by a dollar. The default stands in for a variable that is not set
// or empty. A variable without either is an error, as is "${" that is not a
// reference. What is put in is not expanded again.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		at := strings.IndexByte(text, '$')
		if at < 0 || at == len(text)-1 {
			out.WriteString(text)
			return out.String(), nil
		}
		out.WriteString(text[:at])
		switch text = text[at+1:]; text[0] {
		case '$':
			out.WriteByte('$')
			text = text[1:]
		case '{':
			reference, rest, closed := strings.Cut(text[1:], "}")
			if !closed {
				return "", errors.New(`"${" without "}"; write $${ for the characters themselves`)
			}
			value, err := variable(reference, lookup)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			text = rest
		default:
			out.WriteByte('$')
		}
	}
}

// variable is the value of NAME or NAME:-default.
func variable(reference string, lookup func(string) (string, bool)) (string, error) {
	name, fallback, hasDefault := strings.Cut(reference, ":-")
	if !variableName.MatchString(name) {
		return "", fmt.Errorf("${%s} names no variable; write $${ for the characters themselves", reference)
	}
	if strings.Contains(fallback, "${") {
		return "", fmt.Errorf("the default of ${%s} holds another variable", name)
	}
	value, set := lookup(name)
	switch {
	case hasDefault && value == "":
		return fallback, nil
	case !set:
		return "", fmt.Errorf("the environment variable %s is not set", name)
	}
	return value, nil
}
