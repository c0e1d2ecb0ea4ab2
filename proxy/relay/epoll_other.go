//go:build !linux || !(amd64 || arm64)

package relay

import (
	"errors"
	"net"
	"os"
)

// loopsWork says that this system has what a Loop needs. Without it nothing
// below is called.
const loopsWork = false

const (
	eventOut = 1 << iota
	eventGone
	eventEnd
)

type epoll struct{ file *os.File }

type event struct{ Events uint32 }

var errNoLoop = errors.ErrUnsupported

func (e *event) place() (number, gen uint32)   { return 0, 0 }
func newEpoll() (*epoll, error)                { return nil, errNoLoop }
func (e *epoll) close()                        {}
func (e *epoll) add(int, uint32, uint32) error { return errNoLoop }
func (e *epoll) poll() []event                 { return nil }
func (e *epoll) rouse()                        {}
func (e *epoll) alarm(instant)                 {}
func receive(int, []byte) (int, error)         { return 0, errNoLoop }
func transmit(int, []byte) (int, error)        { return 0, errNoLoop }
func closeSocket(int)                          {}
func shutdown(int)                             {}
func reset(int)                                {}
func plain(net.Conn) bool                      { return false }
func duplicate(net.Conn) (int, error)          { return -1, errNoLoop }
