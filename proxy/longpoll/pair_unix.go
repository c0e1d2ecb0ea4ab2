//go:build unix

package longpoll

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a connection inside this process. They are
// sockets, so that the session's can be driven as any client's.
func pair() (session, client net.Conn, err error) {
	syscall.ForkLock.RLock() // no child may inherit them
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	if session, err = conn(fds[0]); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if client, err = conn(fds[1]); err != nil {
		session.Close()
		return nil, nil, err
	}
	return session, client, nil
}

// conn makes a connection of a descriptor, which it takes.
func conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "longpoll")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("make a connection of a socket: %w", err)
	}
	return c, nil
}
