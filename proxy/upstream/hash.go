package upstream

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// hashSource is what a hashing pool balances by.
type hashSource uint8

const (
	hashID hashSource = iota
	hashIP
	hashPath
	hashQuery
	hashHeader
	hashCookie
)

// hashKey names one value of a request. The zero value is the client's id.
type hashKey struct {
	source hashSource
	name   string // of a query parameter, header or cookie
}

// hashSources are the words for a hash key; those that are true take a name.
var hashSources = map[string]struct {
	source hashSource
	named  bool
}{
	"id":     {hashID, false},
	"ip":     {hashIP, false},
	"path":   {hashPath, false},
	"query":  {hashQuery, true},
	"header": {hashHeader, true},
	"cookie": {hashCookie, true},
}

func parseHashKey(s string) (hashKey, error) {
	word, name, named := strings.Cut(s, ":")
	known, ok := hashSources[word]
	switch {
	case !ok:
		return hashKey{}, fmt.Errorf("unknown hash key %q: want id, ip, path, query:NAME, header:NAME or cookie:NAME", s)
	case known.named && name == "":
		return hashKey{}, fmt.Errorf("hash key %q lacks a name: write %s:NAME", s, word)
	case named && !known.named:
		return hashKey{}, fmt.Errorf("hash key %q takes no name: write %s", s, word)
	}
	return hashKey{known.source, name}, nil
}

// rendezvous picks by weighted rendezvous hashing (highest random weight;
// Schindelhauer and Schomaker's logarithmic method): each target draws a
// number in (0, 1) from the key's and its own name's hash, and the highest
// -weight/ln(draw) wins. A target that comes or goes moves only the keys
// that it wins or held, and a change of weight only the share that changes.
// Nothing is stored, so every stent with the same targets agrees.
func rendezvous(candidates []*Target, key string) *Target {
	var (
		best  *Target
		top   = math.Inf(-1)
		input [16]byte
	)
	binary.LittleEndian.PutUint64(input[:8], xxhash.Sum64String(key))
	for _, t := range candidates {
		binary.LittleEndian.PutUint64(input[8:], t.hash)
		// 53 bits and a half: never 0 and never 1, as the logarithm needs.
		draw := (float64(xxhash.Sum64(input[:])>>11) + 0.5) / (1 << 53)
		if score := -float64(t.weight) / math.Log(draw); score > top {
			best, top = t, score
		}
	}
	return best
}
