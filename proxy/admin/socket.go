package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// socketMode lets the process's own user and group in: on a unix socket the
// file's mode is what a token is elsewhere.
const socketMode = 0o660

// probeTimeout bounds the look whether somebody listens on a socket file.
const probeTimeout = time.Second

// listen binds the admin address.
func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var c net.ListenConfig
	if network == "unix" {
		if err := removeStale(ctx, address); err != nil {
			return nil, err
		}
		c.Control = restrict
	}
	socket, err := c.Listen(ctx, network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the address is in use, perhaps by another stent: %w", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := os.Chmod(address, socketMode); err != nil {
			socket.Close()
			return nil, err
		}
	}
	return socket, nil
}

// removeStale removes the socket file that a process has left behind.
// Anything else at its path stays, as does a socket that is listened on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket stands there")
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("somebody listens there, perhaps another stent: %w", syscall.EADDRINUSE)
	case errors.Is(err, fs.ErrNotExist):
		return nil // it went meanwhile
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("see whether somebody listens there: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that was left there: %w", err)
	}
	return nil
}
