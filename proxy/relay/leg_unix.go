//go:build unix

package relay

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// readReady is called when the descriptor may be readable. It takes a
// buffer only for the time of the attempt, so that a leg which waits holds
// none.
func (l *leg) readReady(fd uintptr) bool {
	buf := l.nextBuffer()
	off := copy(buf.b, l.carry.bytes())
	for {
		n, err := syscall.Read(int(fd), buf.b[off:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			buf.release()
			return false
		case err != nil:
			buf.release()
			l.readErr = err
			return true
		case n == 0:
			buf.release()
			l.readErr = io.EOF
			return true
		}
		l.carry.reset()
		l.chunk, l.n = buf, off+n
		return true
	}
}

// hungUp reports whether a socket's connection is gone both ways.
func hungUp(raw syscall.RawConn) bool {
	gone := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, _ := unix.Poll(fds, 0)
		gone = n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return gone || err != nil
}

// readable reports whether a descriptor has something to be read.
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(fds, 0)
	return n > 0 && fds[0].Revents&unix.POLLIN != 0
}
