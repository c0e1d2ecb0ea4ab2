//go:build !unix

package longpoll

import "net"

// pair returns the two ends of a connection inside this process.
func pair() (session, client net.Conn, err error) {
	session, client = net.Pipe()
	return session, client, nil
}
