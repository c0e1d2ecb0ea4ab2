package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// stent is a running stent binary.
type stent struct {
	address string // of its listener
	admin   string // of its admin listener
	config  string
	child   *child
	log     *tail
}

// config returns a configuration that puts w in front of address; keys are
// further lines of the route.
func (w way) config(address, keys string) string {
	return route(address, keys+w.mode())
}

// mode returns the lines of a route that make it w's.
func (w way) mode() string {
	switch w {
	case rules:
		return "    handlers: [{rules: [{when: 'size < 0', drop: true}]}]\n"
	case terminate:
		return "    compression: terminate\n"
	}
	return ""
}

// route returns a configuration of one route to address; keys are further
// lines of the route.
func route(address, keys string) string {
	return fmt.Sprintf(`
log: {level: warn}
shutdown: {drain: 1s}
routes:
  - path: /*
    upstream: app
%supstreams:
  app:
    targets: [ws://%s]
    dial: {timeout: 20s}
`, keys, address)
}

// stentBinary builds cmd/stent once for the run; with STENT_E2E_RACE=1 it
// carries the race detector.
var stentBinary = sync.OnceValues(func() (string, error) {
	dir, err := scratchDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "stent")
	args := []string{"build", "-o", binary}
	if os.Getenv("STENT_E2E_RACE") == "1" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/stent")...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build stent: %w\n%s", err, out)
	}
	return binary, nil
})

// startStent runs stent with config, whose listeners it adds, until the test
// ends; its drain must then be clean.
func startStent(t testing.TB, config string) *stent {
	t.Helper()
	return startStentOn(t, func(address string) string { return fmt.Sprintf("[{address: %q}]", address) }, config)
}

// startStentOn is startStent with the listeners that listeners gives for a
// free address, and further environment variables.
func startStentOn(t testing.TB, listeners func(address string) string, config string, env ...string) *stent {
	t.Helper()
	binary, err := stentBinary()
	if err != nil {
		t.Fatal(err)
	}
	var s *stent
	// Another process may take a free port before stent does.
	for range 5 {
		free := freeAddresses(t, 2)
		s = &stent{address: free[0], admin: free[1], log: new(tail)}
		s.config = fmt.Sprintf("listeners: %s\nadmin: {address: %q}\n%s", listeners(s.address), s.admin, config)
		file := filepath.Join(t.TempDir(), "stent.yaml")
		if err := os.WriteFile(file, []byte(s.config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(binary, "serve", "-c", file)
		cmd.Stderr = s.log
		cmd.Env = append(os.Environ(), env...)
		s.child = start(t, cmd, func(line []byte) { fmt.Fprintf(s.log, "%s\n", line) })
		if err = s.ready(); err == nil || !strings.Contains(s.log.String(), "address already in use") {
			break
		}
	}
	t.Cleanup(func() { s.stop(t) })
	if err != nil {
		t.Fatalf("stent is not ready: %v\n%s", err, s.log)
	}
	return s
}

// stop ends stent and fails where its end or its log is not clean.
func (s *stent) stop(t testing.TB) {
	if err := s.child.end(15 * time.Second); err != nil {
		t.Errorf("end stent: %v", err)
	}
	log := s.log.String()
	for _, bad := range []string{"panic", "DATA RACE", "goroutine "} {
		if strings.Contains(log, bad) {
			t.Errorf("stent's log has %q", bad)
		}
	}
	if t.Failed() {
		t.Logf("stent ran with\n%.1000s\nand said\n%s", s.config, log[max(0, len(log)-4000):])
	}
}

// ready returns when stent says that it is ready.
func (s *stent) ready() error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for {
		resp, err := http.Get("http://" + s.admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-tick.C:
		case <-s.child.done:
			return errors.New("it ended at once")
		case <-deadline:
			return err
		}
	}
}

// freeAddress returns an address of this machine that nothing listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	return freeAddresses(t, 1)[0]
}

// freeAddresses returns n of them, each another.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	// Below the range from which the system takes ports for connections and
	// for listeners on port 0: other tests run at the same time.
	var all []string
	for range 100 {
		if len(all) == n {
			return all
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close() // not before all are found
			all = append(all, l.Addr().String())
		}
	}
	t.Fatal("no free ports in a hundred tries")
	return nil
}
