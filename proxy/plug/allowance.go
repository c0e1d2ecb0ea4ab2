package plug

import "time"

// Allowance is a rate that the clients of all sessions with its key keep
// together. A rate of 0 is no limit.
type Allowance struct {
	Key             AllowanceKey
	Messages, Bytes float64 // a second
	Burst           time.Duration
}

// AllowanceKey names an Allowance: of a plug, and of a key under it.
type AllowanceKey countName
