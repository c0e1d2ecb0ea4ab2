package plug

import (
	"net/netip"
	"testing"

	"github.com/stentproxy/stent/config"
)

// ranges reads address ranges as a file has them.
func ranges(t *testing.T, key string, texts string) []config.CIDR {
	t.Helper()
	if texts == "" {
		return nil
	}
	c, err := config.Parse("test", []byte("endpoint: [{ip: {"+key+": ["+texts+"]}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Endpoint[0].Config.(*config.IPPlug)
	return append(p.Allow, p.Deny...)
}

func TestIP(t *testing.T) {
	for _, tt := range []struct {
		name, allow, deny, client string
		want                      int
	}{
		{"allowed", "10.0.0.0/8", "", "10.1.2.3", 200},
		{"not allowed", "10.0.0.0/8", "", "11.1.2.3", 403},
		{"one address", "10.0.0.1", "", "10.0.0.1", 200},
		{"its neighbour", "10.0.0.1", "", "10.0.0.2", 403},
		{"host bits in the range", "10.9.9.9/8", "", "10.1.2.3", 200},
		{"denied", "", "10.0.0.0/8", "10.1.2.3", 403},
		{"not denied", "", "10.0.0.0/8", "11.1.2.3", 200},
		{"denied inside of allowed", "10.0.0.0/8", "10.0.0.1", "10.0.0.1", 403},
		{"mapped client, denied", "", "10.0.0.0/8", "::ffff:10.1.2.3", 403},
		{"mapped client, allowed", "10.0.0.0/8", "", "::ffff:10.1.2.3", 200},
		{"mapped range, denied", "", `"::ffff:10.0.0.0/104"`, "10.1.2.3", 403},
		{"mapped range, allowed", `"::ffff:10.0.0.0/104"`, "", "10.1.2.3", 200},
		{"mapped range, others", `"::ffff:10.0.0.0/104"`, "", "11.1.2.3", 403},
		{"mapped address", "", `"::ffff:10.0.0.1"`, "10.0.0.1", 403},
		{"all mapped addresses", "", `"::ffff:0:0/96"`, "10.0.0.1", 403},
		{"IPv6", `"2001:db8::/32"`, "", "2001:db8:1::5", 200},
		{"other IPv6", `"2001:db8::/32"`, "", "2001:db9::5", 403},
		{"all of IPv6 is not IPv4", `"::/0"`, "", "10.0.0.1", 403},
		{"all of IPv4 is not IPv6", "0.0.0.0/0", "", "::1", 403},
		{"a zone", `"fe80::/10"`, "", "fe80::1%eth0", 200},
		{"no address, allow", "10.0.0.0/8", "", "", 403},
		{"no address, deny", "", "10.0.0.0/8", "", 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &config.IPPlug{Allow: ranges(t, "allow", tt.allow), Deny: ranges(t, "deny", tt.deny)}
			h := compile(t, "ip", c, Env{}).Wrap(ok(nil))
			r, info := request("GET", "/")
			info.ClientIP = netip.Addr{}
			if tt.client != "" {
				info.ClientIP = netip.MustParseAddr(tt.client)
			}
			if got := status(h, r).Code; got != tt.want {
				t.Errorf("%s got %d, want %d", tt.client, got, tt.want)
			}
		})
	}
}
