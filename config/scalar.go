package config

import (
	"net/netip"
	"time"
)

// Duration is written like 1s or 250ms.
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Size is a number of bytes, written like 512 or 64KiB.
type Size int64

// Percent is a fraction written like 50%.
type Percent float64

// CIDR is an address range, or a single address.
type CIDR struct{ netip.Prefix }

// Base64 is bytes written in standard base64.
type Base64 []byte

// Secret is text that is never printed. It is written as a string or as
// {file: path}.
type Secret struct {
	value string
	file  string
}
