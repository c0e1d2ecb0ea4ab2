package proxy

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/stentproxy/stent/proxy/testbackend"
)

func TestMain(m *testing.M) {
	testbackend.Main() // a child of one of these tests
	goleak.VerifyTestMain(m, certmagicLeaves...)
}

// certmagicLeaves are goroutines that certmagic does not stop: one for each
// lock that it has held, which sees within 5 s that the lock is gone, and one
// for each account for as long as the process lives.
var certmagicLeaves = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
}
