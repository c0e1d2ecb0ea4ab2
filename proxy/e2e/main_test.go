package e2e

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if testing.Verbose() {
		fmt.Print(summary.String())
	}
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// gate skips what is not part of a plain go test.
func gate(t *testing.T) {
	t.Helper()
	if os.Getenv("STENT_E2E") != "1" {
		t.Skip("end-to-end tests run with STENT_E2E=1")
	}
}
