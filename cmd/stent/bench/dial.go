package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// handshakeTimeout bounds connecting, TLS and the upgrade together.
const handshakeTimeout = 10 * time.Second

// RefusedError is an answer other than 101 to a handshake.
type RefusedError struct {
	Status string // as it came: "503 Service Unavailable"
}

// Error says how it was refused.
func (e *RefusedError) Error() string { return "refused with " + e.Status }

// dialer opens WebSockets to one target.
type dialer struct {
	url     *url.URL
	address string // host:port
	header  http.Header
	tls     *tls.Config // nil for plain TCP
}

func newDialer(raw string, header http.Header, insecure bool) (*dialer, error) {
	u, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	d := &dialer{url: u, header: header, address: u.Host}
	if u.Port() == "" {
		d.address = net.JoinHostPort(u.Hostname(), map[string]string{"ws": "80", "wss": "443"}[u.Scheme])
	}
	if u.Scheme == "wss" {
		d.tls = &tls.Config{ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}, InsecureSkipVerify: insecure}
	}
	return d, nil
}

// dial opens one WebSocket. No extension is offered: what is measured is the
// way of the bytes, not a compressor. What came with the answer already is
// in the reader's buffer.
func (d *dialer) dial(ctx context.Context) (net.Conn, *bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	r, err := d.upgrade(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	if d.tls == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", d.address)
	}
	return (&tls.Dialer{Config: d.tls}).DialContext(ctx, "tcp", d.address)
}

// acceptGUID is what a server adds to the key (RFC 6455 section 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// upgrade makes the handshake of RFC 6455 section 4.1.
func (d *dialer) upgrade(conn net.Conn) (*bufio.Reader, error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := &http.Request{Method: http.MethodGet, URL: d.url, Host: d.url.Host, Header: d.header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // Write leaves the field of this name out
	}
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key,
	} {
		req.Header.Set(name, value)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "stent-bench")
	}
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("send the handshake: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fmt.Errorf("read the handshake's answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, &RefusedError{Status: resp.Status}
	}
	sum := sha1.Sum([]byte(key + acceptGUID))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) ||
		!strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return nil, errors.New("an answer with 101 that accepts no WebSocket")
	}
	if resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		return nil, errors.New("an extension that was not offered")
	}
	return r, nil
}
