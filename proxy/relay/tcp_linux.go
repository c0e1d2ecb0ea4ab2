package relay

import "golang.org/x/sys/unix"

// acknowledged returns how many bytes the peer of a TCP socket has
// acknowledged, and whether some are left that it has not.
func acknowledged(fd int) (n uint64, left bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, false // of another kind of socket
	}
	return info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
}
