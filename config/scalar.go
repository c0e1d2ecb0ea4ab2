package config

import (
	"encoding/base64"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Duration is written like 1s or 250ms.
type Duration time.Duration

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is how d is written in the file.
func (d Duration) String() string { return time.Duration(d).String() }

func (d *Duration) decode(dec *decoder, n *node, path string) {
	const want = "a duration such as 10s or 250ms"
	if n.resolved() == kindInt && strings.Trim(n.text, "0") == "" {
		*d = 0
		return
	}
	if n.kind != kindString {
		dec.mismatch(n, path, want)
		return
	}
	parsed, err := time.ParseDuration(n.text)
	if err != nil {
		dec.mismatch(n, path, want)
		return
	}
	*d = Duration(parsed)
}

// Size is a number of bytes, written like 512 or 64KiB.
type Size int64

// String is how s is written in the file.
func (s Size) String() string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if one := Size(1) << (10 * (3 - i)); s >= one && s%one == 0 {
			return strconv.FormatInt(int64(s/one), 10) + unit
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func (s *Size) decode(d *decoder, n *node, path string) {
	if k := n.resolved(); k != kindString && k != kindInt {
		d.mismatch(n, path, "a size such as 512 or 64KiB")
		return
	}
	if strings.HasPrefix(n.text, "-") {
		d.fail(n, path, "must not be negative")
		return
	}
	bytes, err := humanize.ParseBytes(n.text)
	if err != nil {
		d.mismatch(n, path, "a size such as 512 or 64KiB")
		return
	}
	if bytes > math.MaxInt64 {
		d.fail(n, path, "%s is out of range", n.shown())
		return
	}
	*s = Size(bytes)
}

// Percent is a fraction written like 50%.
type Percent float64

// String is how p is written in the file.
func (p Percent) String() string {
	return strconv.FormatFloat(float64(p)*100, 'f', -1, 64) + "%"
}

func (p *Percent) decode(d *decoder, n *node, path string) {
	number, ok := strings.CutSuffix(n.text, "%")
	if f, err := strconv.ParseFloat(number, 64); ok && err == nil && n.kind == kindString && f >= 0 && f <= 100 {
		*p = Percent(f / 100)
		return
	}
	d.mismatch(n, path, "a percentage from 0% to 100%")
}

// CIDR is an address range, or a single address.
type CIDR struct{ netip.Prefix }

func (c *CIDR) decode(d *decoder, n *node, path string) {
	if n.kind == kindString {
		prefix, err := netip.ParsePrefix(n.text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(n.text); err == nil && addr.Zone() == "" {
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
		}
		if prefix.IsValid() {
			c.Prefix = unmapped(prefix).Masked()
			return
		}
	}
	d.mismatch(n, path, "an address range such as 10.0.0.0/8, or an address")
}

// unmapped makes ::ffff:10.0.0.0/104 the 10.0.0.0/8 that it is (RFC 4291
// section 2.5.5.2): clients' addresses are compared in that form.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Base64 is bytes written in standard base64.
type Base64 []byte

// String is how b is written in the file.
func (b Base64) String() string { return base64.StdEncoding.EncodeToString(b) }

func (b *Base64) decode(d *decoder, n *node, path string) {
	if n.kind == kindString {
		if data, err := base64.StdEncoding.Strict().DecodeString(n.text); err == nil {
			*b = data
			return
		}
	}
	d.mismatch(n, path, "bytes in standard base64")
}
