//go:build !unix

package relay

import "syscall"

// readReady is not used: without plain descriptors every leg reads through
// its net.Conn.
func (l *leg) readReady(uintptr) bool { return true }

func hungUp(syscall.RawConn) bool { return false }

func readable(int) bool { return false }
