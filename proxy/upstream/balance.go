package upstream

import (
	"math/rand/v2"

	"github.com/stentproxy/stent/config"
)

// choose applies a balancing algorithm to targets that may be picked; there
// is at least one. The pool's mu is held.
func choose(b balance, candidates []*Target, client affinity, rng *rand.Rand) *Target {
	if len(candidates) == 1 {
		return candidates[0]
	}
	switch b.kind {
	case config.BalanceRoundRobin:
		return smoothRoundRobin(candidates)
	case config.BalanceRandom:
		return weighted(candidates, rng)
	case config.BalanceP2C:
		return lighterOfTwo(candidates, rng)
	case config.BalanceHash:
		// A client without the key has no home. Hashing the empty string
		// would send all of them to one target.
		if key := client.affinity(b.key); key != "" {
			return rendezvous(candidates, key)
		}
	case config.BalanceLeastSessions:
	}
	return lightest(candidates, rng)
}

// lighter reports whether one more session would weigh less on a than on b,
// and whether it would weigh the same.
func lighter(a, b *Target) (less, same bool) {
	x := (a.load() + 1) * b.weight
	y := (b.load() + 1) * a.weight
	return x < y, x == y
}

// lightest returns the target on which one more session weighs least. Ties
// are broken at random, so that stents that start together don't march
// through the list in step.
func lightest(candidates []*Target, rng *rand.Rand) *Target {
	best, ties := candidates[0], 1
	for _, t := range candidates[1:] {
		switch less, same := lighter(t, best); {
		case less:
			best, ties = t, 1
		case same:
			if ties++; rng.IntN(ties) == 0 {
				best = t
			}
		}
	}
	return best
}

// smoothRoundRobin gives each target its weight's share of every round and
// spreads those turns over the round: each gains its weight, the richest is
// picked and pays the sum.
func smoothRoundRobin(candidates []*Target) *Target {
	best, sum := candidates[0], 0
	for _, t := range candidates {
		t.turn += t.weight
		sum += t.weight
		if t.turn > best.turn {
			best = t
		}
	}
	best.turn -= sum
	return best
}

// weighted draws a target with a probability in proportion to its weight.
func weighted(candidates []*Target, rng *rand.Rand) *Target {
	sum := 0
	for _, t := range candidates {
		sum += t.weight
	}
	n := rng.IntN(sum)
	for _, t := range candidates {
		if n -= t.weight; n < 0 {
			return t
		}
	}
	return candidates[len(candidates)-1]
}

// lighterOfTwo draws two different targets and returns the one on which one
// more session weighs less.
func lighterOfTwo(candidates []*Target, rng *rand.Rand) *Target {
	a := rng.IntN(len(candidates))
	b := rng.IntN(len(candidates) - 1)
	if b >= a {
		b++
	}
	if less, _ := lighter(candidates[b], candidates[a]); less {
		return candidates[b]
	}
	return candidates[a]
}
