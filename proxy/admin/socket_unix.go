//go:build unix

package admin

import "syscall"

// restrict gives a socket its mode before it has a name, so that there is no
// moment at which others may connect. Linux makes the file with that mode,
// less the umask; systems that know no mode of a nameless socket refuse,
// which the chmod that follows makes good.
func restrict(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
}
