package proxy

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/stentproxy/stent/proxy/testbackend"
)

func TestMain(m *testing.M) {
	testbackend.Main() // a child of one of these tests
	goleak.VerifyTestMain(m)
}
