package config

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// suggest returns the name that was probably meant by word, or nothing when
// none is close.
func suggest(word string, names []string) string {
	const longest = 64 // no name is longer; the distance costs the product of both lengths
	if word == "" || len(word) > longest {
		return ""
	}
	fold := strings.NewReplacer("_", "", "-", "", " ", "").Replace
	// Two letters swapped count as two: half of a short word may differ.
	best, distance := "", min(len(word)/2, 3)+1
	for _, name := range names {
		if strings.EqualFold(fold(word), fold(name)) {
			return name
		}
		if d := levenshtein.ComputeDistance(word, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}
