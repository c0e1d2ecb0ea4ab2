package relay

import "golang.org/x/sys/unix"

// acknowledged returns how many bytes the peer of a TCP socket has
// acknowledged, and how many it has still to; ok is false where that is not
// known.
func acknowledged(fd int) (n, left uint64, ok bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, 0, false // of another kind of socket
	}
	// What is acknowledged between the two calls is not counted twice.
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0, 0, false
	}
	return info.Bytes_acked, uint64(queued), true
}
