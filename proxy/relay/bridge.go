package relay

import (
	"io"
	"net"
	"sync"
	"time"
)

// carryOver copies between a socket and a connection of another kind until
// both directions have ended, or the connection has not followed the end of
// the socket's within the grace. It closes both.
func carryOver(own *net.UnixConn, conn net.Conn, grace time.Duration) {
	defer own.Close()
	defer conn.Close()
	var up sync.WaitGroup
	defer up.Wait()
	up.Go(func() {
		_, err := io.Copy(conn, own)
		if c, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			c.CloseWrite()
		}
		conn.SetDeadline(time.Now().Add(grace))
		if err != nil {
			own.CloseRead() // it takes no more, but may have said why
		}
	})
	if _, err := io.Copy(own, conn); err != nil {
		own.CloseRead()
	}
	own.CloseWrite()
}
