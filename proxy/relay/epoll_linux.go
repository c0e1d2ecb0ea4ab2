//go:build linux && (amd64 || arm64)

package relay

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loopsWork says that this system has what a Loop needs.
const loopsWork = true

// What a socket's events tell.
const (
	eventOut  = unix.EPOLLOUT
	eventGone = unix.EPOLLHUP | unix.EPOLLERR
	eventEnd  = eventGone | unix.EPOLLRDHUP
)

// The calls below are made raw, without telling Go's scheduler: none of them
// blocks, and telling it costs more than some of them.

// epoll is an edge-triggered set of sockets.
type epoll struct {
	fd     int
	file   *os.File // fd, as Go's poller waits for it
	bell   int      // an eventfd that interrupts the wait
	events [256]event
}

// event is a struct epoll_event; its data is a place and a generation.
type event struct{ unix.EpollEvent }

func (e *event) place() (number, gen uint32) { return uint32(e.Fd), uint32(e.Pad) }

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	e := &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if e.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		e.file.Close()
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	if err := e.add(e.bell, 0, 0); err != nil {
		e.close()
		return nil, fmt.Errorf("watch an eventfd: %w", err)
	}
	return e, nil
}

func (e *epoll) close() {
	unix.Close(e.bell)
	e.file.Close()
}

// add watches a socket.
func (e *epoll) add(fd int, number, gen uint32) error {
	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff,
		Fd:     int32(number), Pad: int32(gen),
	}
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// poll returns the events that are there, without waiting.
func (e *epoll) poll() []event {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), 0, 0, 0)
	if errno != 0 {
		return nil
	}
	return e.events[:n]
}

// rouse interrupts the wait. Each write is an edge of its own, so nothing
// has to be read.
func (e *epoll) rouse() {
	one := [8]byte{1}
	unix.Write(e.bell, one[:])
}

// alarm bounds the wait; an instant below 0 is no bound.
func (e *epoll) alarm(at instant) {
	if at < 0 {
		e.file.SetReadDeadline(time.Time{})
		return
	}
	e.file.SetReadDeadline(at.time())
}

func receive(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0 && n == 0:
			return 0, io.EOF
		case errno == 0:
			return int(n), nil
		case errno == unix.EAGAIN:
			return 0, errDry
		case errno != unix.EINTR:
			return 0, os.NewSyscallError("recv", errno)
		}
	}
}

func transmit(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == 0:
			return int(n), nil
		case errno == unix.EAGAIN:
			return 0, errFull
		case errno != unix.EINTR:
			return 0, os.NewSyscallError("send", errno)
		}
	}
}

func closeSocket(fd int) { unix.Close(fd) }

// shutdown ends the stream that was written.
func shutdown(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }

// reset makes the closing of a socket a reset.
func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// plain reports whether a connection is a socket and nothing else.
func plain(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// duplicate returns another descriptor of a plain connection, which Go's
// poller does not know.
func duplicate(conn net.Conn) (int, error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	dup, dupErr := -1, error(nil)
	err = raw.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	return dup, os.NewSyscallError("dup", dupErr)
}
