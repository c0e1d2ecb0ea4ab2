package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
)

// proxied is a connection from a trusted proxy, which says in a PROXY header
// whose it is. The header comes before all else, TLS too. It is read when
// the connection is first used, to its last byte and no further: what the
// session takes over is the socket below.
type proxied struct {
	net.Conn
	timeout time.Duration
	log     *zap.Logger

	once   sync.Once
	client net.Addr
	err    error
}

// Read implements net.Conn. A connection without a proper header has nothing
// to read.
func (p *proxied) Read(b []byte) (int, error) {
	if p.once.Do(p.begin); p.err != nil {
		return 0, io.EOF
	}
	return p.Conn.Read(b)
}

// RemoteAddr returns the client's address.
func (p *proxied) RemoteAddr() net.Addr {
	p.once.Do(p.begin)
	return p.client
}

// CloseWrite ends what is sent; net/http does that before it closes.
func (p *proxied) CloseWrite() error {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		return c.CloseWrite()
	}
	return nil
}

// begin reads the header. Whoever uses the connection sets its own deadlines
// after that. It recovers a panic: net/http asks for the address where it does
// not.
func (p *proxied) begin() {
	p.client = p.Conn.RemoteAddr()
	p.err = errors.New("read the PROXY header: panicked")
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("PROXY header not read", zap.Any("panic", v), zap.Stack("stack"))
		}
	}()
	_ = p.Conn.SetReadDeadline(time.Now().Add(p.timeout))
	source, err := readProxyHeader(p.Conn)
	p.err = err
	_ = p.Conn.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, io.EOF): // the proxy only looked whether we are there
	case err != nil:
		p.log.Warn("connection of a trusted proxy refused", zap.Stringer("proxy", p.client), zap.Error(err))
	case source != nil:
		p.client = source
	}
}

const (
	// leastProxyHeader is "PROXY UNKNOWN\r\n", the shortest one.
	leastProxyHeader = 15
	// mostProxyLine is the longest of version 1.
	mostProxyLine = 107
	// fixedProxyHeader is what each one of version 2 begins with.
	fixedProxyHeader = 16
	// mostProxyHeader bounds those of version 2: two addresses and what
	// proxies tell of their TLS.
	mostProxyHeader = 4096
)

// readProxyHeader reads a PROXY header, version 1 or 2, and returns the
// client's address in it: nil where the proxy speaks for itself, as its
// health checks do, or does not know. It reads nothing beyond the header.
func readProxyHeader(r io.Reader) (*net.TCPAddr, error) {
	b := make([]byte, leastProxyHeader, mostProxyLine)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read the PROXY header: %w", err)
	}
	more := func(n int) error {
		at := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return fmt.Errorf("read the PROXY header: %w", io.ErrUnexpectedEOF)
		}
		return nil
	}
	switch {
	case bytes.HasPrefix(b, proxyproto.SIGV2):
		if err := more(fixedProxyHeader - len(b)); err != nil {
			return nil, err
		}
		length := int(b[fixedProxyHeader-2])<<8 | int(b[fixedProxyHeader-1])
		if length > mostProxyHeader-fixedProxyHeader {
			return nil, fmt.Errorf("a PROXY header of %d bytes", length)
		}
		if err := more(length); err != nil {
			return nil, err
		}
		if b[12] == byte(proxyproto.PROXY) && b[13] == byte(proxyproto.UNSPEC) {
			return nil, nil // valid, though the library refuses it
		}
	case bytes.HasPrefix(b, proxyproto.SIGV1):
		if i := bytes.IndexByte(b, '\n'); i >= 0 && i < len(b)-1 {
			return nil, errors.New("a PROXY header that is too short")
		}
		for b[len(b)-1] != '\n' {
			if len(b) == mostProxyLine {
				return nil, errors.New("a PROXY header that is too long")
			}
			if err := more(1); err != nil {
				return nil, err
			}
		}
	default:
		return nil, errors.New("no PROXY header")
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), len(b)))
	if err != nil {
		return nil, fmt.Errorf("read the PROXY header: %w", err)
	}
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return nil, nil
	}
	source, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, errors.New("a PROXY header for a connection that is not TCP")
	}
	return source, nil
}

// addrOf returns the IP address in a network address.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return plain(tcp.AddrPort().Addr())
	}
	return netip.Addr{}
}
