package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/stentproxy/stent/proxy/field"
)

const (
	// maxAnswer bounds the header of an answer, interim answers included.
	maxAnswer = 64 << 10
	// maxInterim bounds the 1xx answers before the final one, as net/http does.
	maxInterim = 5
	// acceptGUID is what the key is hashed with (RFC 6455 section 1.3).
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

var errAnswerTooLarge = fmt.Errorf("header is larger than %d bytes", maxAnswer)

// answerReader reads an answer from a connection: first its header, within
// a bound, then the body of a refusal, without one but each read in time.
type answerReader struct {
	conn  net.Conn
	left  int           // of maxAnswer
	pause time.Duration // between reads of a body; 0 while the header is read
	buf   *bufio.Reader
}

func (r *answerReader) Read(b []byte) (int, error) {
	if r.pause > 0 {
		if err := r.conn.SetReadDeadline(time.Now().Add(r.pause)); err != nil {
			return 0, err
		}
		return r.conn.Read(b)
	}
	if r.left <= 0 {
		return 0, errAnswerTooLarge
	}
	n, err := r.conn.Read(b[:min(len(b), r.left)])
	r.left -= n
	return n, err
}

// readers keep the buffers of handshakes: a session has no use for one after
// its 101.
var readers = sync.Pool{New: func() any {
	r := new(answerReader)
	r.buf = bufio.NewReader(r)
	return r
}}

func newAnswerReader(nc net.Conn) *answerReader {
	r := readers.Get().(*answerReader)
	r.conn, r.left, r.pause = nc, maxAnswer, 0
	r.buf.Reset(r)
	return r
}

// early takes what was read beyond the answer.
func (r *answerReader) early() []byte {
	if r.buf.Buffered() == 0 {
		return nil
	}
	b, _ := r.buf.Peek(r.buf.Buffered())
	return bytes.Clone(b)
}

func (r *answerReader) free() {
	r.conn = nil
	r.buf.Reset(nil)
	readers.Put(r)
}

// requests keep the buffers that handshakes are written from.
var requests = sync.Pool{New: func() any { return new([]byte) }}

// shake makes the opening handshake over a connection. The connection stays
// the caller's to close, but for a *Refused, whose body closes it. The end of
// ctx ends the handshake; the error is then whatever the connection said.
func (l lease) shake(ctx context.Context, nc net.Conn, h *Handshake, prefix string) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	buf := requests.Get().(*[]byte)
	*buf = h.appendRequest((*buf)[:0], prefix, l.target.addr.host, key)
	_, err := nc.Write(*buf)
	requests.Put(buf)
	if err != nil {
		return nil, fmt.Errorf("write handshake: %w", err)
	}

	r := newAnswerReader(nc)
	resp, err := readAnswer(r.buf)
	if err != nil {
		r.free()
		return nil, err
	}
	if !stop() {
		r.free()
		return nil, fmt.Errorf("read handshake: %w", ctx.Err())
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		// The buffer goes with the body, which may still be read while it is
		// closed.
		r.pause = l.policy.timeout
		resp.Body = &refusalBody{resp.Body, nc}
		return nil, &Refused{Target: l.target, Response: resp}
	}
	early := r.early()
	r.free()
	if err := switched(resp.Header, key, h); err != nil {
		return nil, err
	}
	if h.Check != nil {
		if err := h.Check(resp); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsuitable, err)
		}
	}
	return &Conn{Conn: nc, Target: l.target, Response: resp, Early: early}, nil
}

// readAnswer reads the header of the final answer. What is not HTTP is a
// *BadAnswer.
func readAnswer(r *bufio.Reader) (*http.Response, error) {
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(r, nil)
		switch {
		case errors.Is(err, errAnswerTooLarge):
			return nil, &BadAnswer{Reason: errAnswerTooLarge.Error()}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, &BadAnswer{Reason: "connection closed before the answer was complete"}
		case err != nil:
			if _, ok := errors.AsType[net.Error](err); ok {
				return nil, fmt.Errorf("read handshake: %w", err)
			}
			return nil, &BadAnswer{Reason: "answer is not HTTP", Err: err}
		}
		if err := wellFormed(resp); err != nil {
			return nil, err
		}
		// 100, 102 and 103 only announce the answer (RFC 9110 section 15.2).
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, &BadAnswer{Reason: "too many interim answers"}
}

// wellFormed checks what http.ReadResponse lets through and a
// http.ResponseWriter, to which a refusal goes, would not.
func wellFormed(resp *http.Response) error {
	if resp.StatusCode < 100 {
		return &BadAnswer{Reason: fmt.Sprintf("status %q", resp.Status)}
	}
	for name, values := range resp.Header {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				return &BadAnswer{Reason: fmt.Sprintf("malformed header %q", name)}
			}
		}
	}
	return nil
}

// switched checks a 101 by RFC 6455 section 4.1.
func switched(header http.Header, key string, h *Handshake) error {
	accept := sha1.Sum([]byte(key + acceptGUID))
	protocols := header["Sec-Websocket-Protocol"]
	switch {
	case !httpguts.HeaderValuesContainsToken(header["Upgrade"], "websocket"):
		return &BadAnswer{Reason: "101 without Upgrade: websocket"}
	case !httpguts.HeaderValuesContainsToken(header["Connection"], "upgrade"):
		return &BadAnswer{Reason: "101 without Connection: Upgrade"}
	case len(header["Sec-Websocket-Accept"]) != 1,
		header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]):
		return &BadAnswer{Reason: "101 with a wrong Sec-WebSocket-Accept"}
	case len(protocols) > 1:
		return &BadAnswer{Reason: "101 with more than one subprotocol"}
	case len(protocols) == 1 && !contains(h.offered("Sec-WebSocket-Protocol"), protocols[0]):
		return &BadAnswer{fmt.Sprintf("101 with subprotocol %q, which was not offered", protocols[0]), ErrUnsuitable}
	}
	var offered []string
	for e := range field.Elements(header["Sec-Websocket-Extensions"]) {
		if offered == nil {
			offered = h.offered("Sec-WebSocket-Extensions")
		}
		if !contains(offered, e) {
			return &BadAnswer{fmt.Sprintf("101 with extension %q, which was not offered", e), ErrUnsuitable}
		}
	}
	return nil
}

// contains compares what elements are before their parameters. Both
// subprotocols and extensions are matched as they are written.
func contains(offered []string, e string) bool {
	for _, o := range offered {
		if token(o) == token(e) {
			return true
		}
	}
	return false
}

func token(element string) string {
	t, _, _ := strings.Cut(element, ";")
	return strings.TrimSpace(t)
}

// refusalBody is the body of a Refused; closing it closes the connection.
type refusalBody struct {
	io.ReadCloser
	conn net.Conn
}

// Close closes the connection. It does not read the body to its end, as the
// body's own Close would.
func (b *refusalBody) Close() error { return b.conn.Close() }
