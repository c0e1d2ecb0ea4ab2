package phoenix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stentproxy/stent/config"
)

// Matches reports whether a topic is what a pattern says: the same, or with
// the same start where the pattern ends with a star. Rest is what the star
// stands for.
func Matches(pattern, topic string) (rest string, ok bool) {
	if start, open := strings.CutSuffix(pattern, "*"); open {
		return strings.CutPrefix(topic, start)
	}
	return "", pattern == topic
}

// class names a topic in metrics where no rule does: room:42 is room:*, as
// Phoenix's sockets have it.
func class(topic string) string {
	if name, _, ok := strings.Cut(topic, ":"); ok {
		return name + ":*"
	}
	return topic
}

// findRule returns the index of the first rule that a topic matches and what
// its star stands for, or -1.
func findRule(rules []config.Topic, topic string) (i int, rest string) {
	for i := range rules {
		if rest, ok := Matches(rules[i].Match, topic); ok {
			return i, rest
		}
	}
	return -1, ""
}

// claimHolds reports whether a client's claims have what a rule asks for: a
// claim that says something, or one that says or lists the value behind the
// equals sign. There {*} is what the rule's star stands for.
func claimHolds(want string, claims map[string]any, rest string) bool {
	name, value, valued := strings.Cut(want, "=")
	have := claims[name]
	if !valued {
		return says(have)
	}
	value = strings.ReplaceAll(value, "{*}", rest)
	switch have := have.(type) {
	case []any:
		return slices.ContainsFunc(have, func(one any) bool { return equals(one, value) })
	case []string:
		return slices.Contains(have, value)
	}
	return equals(have, value)
}

// says reports whether a claim is more than no, nothing or an empty list.
func says(claim any) bool {
	switch c := claim.(type) {
	case nil:
		return false
	case bool:
		return c
	case string:
		return c != ""
	case []any:
		return len(c) > 0
	case []string:
		return len(c) > 0
	}
	return true
}

func equals(claim any, value string) bool {
	switch c := claim.(type) {
	case nil, map[string]any, []any, []string:
		return false
	case string:
		return c == value
	case float64: // as JSON has it, without an exponent
		return fmt.Sprintf("%.0f", c) == value || fmt.Sprint(c) == value
	}
	return fmt.Sprint(claim) == value
}
