package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// scratch holds what is built for the whole run.
var scratch string

var scratchDir = sync.OnceValues(func() (string, error) {
	var err error
	scratch, err = os.MkdirTemp("", "stent-e2e-")
	return scratch, err
})

const (
	nodeDir   = "testdata/node"
	pythonDir = "testdata/python"
	// python is Debian's own, which has Debian's libraries.
	python = "/usr/bin/python3"
)

// node returns how to run a script of testdata/node, whose dependencies it
// installs from the lock file on first use.
func node(t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	if err := installNode(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("node", append([]string{script}, args...)...)
	cmd.Dir = nodeDir
	return cmd
}

var installNode = sync.OnceValue(func() error {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("no %s here", tool)
		}
	}
	want, err := os.ReadFile(filepath.Join(nodeDir, "package-lock.json"))
	if err != nil {
		return err
	}
	stamp := filepath.Join(nodeDir, "node_modules", ".stent-e2e")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == string(want) {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = nodeDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return os.WriteFile(stamp, want, 0o644)
})

// pythonScript returns how to run a script of testdata/python.
func pythonScript(t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	if err := checkPython(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(python, append([]string{"-u", script}, args...)...)
	cmd.Dir = pythonDir
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

var checkPython = sync.OnceValue(func() error {
	if out, err := exec.Command(python, "-c", "import websockets, aiohttp").CombinedOutput(); err != nil {
		return fmt.Errorf("no python3-websockets and python3-aiohttp here: %w\n%s", err, out)
	}
	return nil
})

// tool skips the test where name is not installed.
func tool(t testing.TB, name string, elsewhere ...string) string {
	t.Helper()
	for _, candidate := range append([]string{name}, elsewhere...) {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Skipf("no %s here", name)
	return ""
}
