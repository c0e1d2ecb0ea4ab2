package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// child runs the backend as a process of its own, so that it can be killed
// as only a process can, and starts it again when it has ended. It is a
// suture service.
type child struct {
	args []string
	env  []string
	// pause is how long the backend stays away after its end.
	pause time.Duration
	log   *zap.Logger

	kills chan struct{}
}

// String names the service in the supervision tree.
func (c *child) String() string { return "chat backend" }

// kill ends the process with SIGKILL; it has no time for anything.
func (c *child) kill() {
	select {
	case c.kills <- struct{}{}:
	default: // one is under way
	}
}

// Serve runs the process until ctx ends.
func (c *child) Serve(ctx context.Context) error {
	for {
		if err := c.live(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.pause):
		}
	}
}

// live is one life of the process.
func (c *child) live(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the backend: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, c.args...)
	cmd.Env = c.env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime + time.Second
	// Its end tells the process that this one is gone.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the backend: %w", err)
	}
	defer stdin.Close()
	select {
	case <-c.kills: // meant for the life before
	default:
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the backend: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-c.kills:
		c.log.Info("killing the backend", zap.Int("pid", cmd.Process.Pid))
		_ = cmd.Process.Kill() // if it is gone already, so much the better
		err = <-ended
	}
	if ctx.Err() == nil {
		c.log.Warn("the backend is gone", zap.Error(err), zap.Duration("back_in", c.pause))
	}
	return nil
}
