package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// child is a process of the test's own, ended with the test by its id.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// start starts cmd and gives each line of its output to line.
func start(t testing.TB, cmd *exec.Cmd, line func([]byte)) *child {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr tail
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<22)
		for lines.Scan() {
			line(lines.Bytes())
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		c.kill()
		if s := stderr.String(); s != "" && t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, s)
		}
	})
	return c
}

// kill ends the process at once, as a crash would.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	<-c.done
}

// end asks the process to end and says whether it did so, cleanly, in time.
func (c *child) end(within time.Duration) error {
	// One that has ended already is judged the same way.
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(within):
		return errors.New("still running long after SIGTERM")
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		return errors.New(c.cmd.ProcessState.String())
	}
	return nil
}

// serverLines reads a server child's output: its port, then its reports.
func serverLines(reports *play.Reports, port chan<- int) func([]byte) {
	return func(line []byte) {
		var said struct {
			Port       int
			Key, Event string
		}
		if json.Unmarshal(line, &said) != nil {
			return
		}
		if said.Port != 0 {
			port <- said.Port
			return
		}
		reports.Add(said.Key, said.Event)
	}
}
