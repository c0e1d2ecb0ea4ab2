package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a backend that takes down what reaches it, byte for byte, and
// reads it as the strictest of servers would.
type recorder struct {
	net.Listener
	serving sync.WaitGroup

	mu       sync.Mutex
	requests []string // "GET /path body"
	faults   []string // what somebody could read differently
	heads    []string
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{Listener: l}
	rec.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			rec.serving.Go(func() { rec.take(c) })
		}
	})
	t.Cleanup(func() { l.Close(); rec.serving.Wait() })
	return rec
}

// note takes something down.
func (rec *recorder) note(list *[]string, format string, args ...any) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	*list = append(*list, fmt.Sprintf(format, args...))
}

// taken returns what has been taken down and forgets it.
func (rec *recorder) taken() (requests, faults, heads []string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	requests, faults, heads = rec.requests, rec.faults, rec.heads
	rec.requests, rec.faults, rec.heads = nil, nil, nil
	return requests, faults, heads
}

func (rec *recorder) take(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		head := ""
		for !strings.HasSuffix(head, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				if head+line != "" {
					rec.note(&rec.faults, "half a request: %q", head+line)
				}
				return
			}
			head += line
		}
		rec.note(&rec.heads, "%s", head)
		length, chunked := rec.judge(head)
		body := make([]byte, length)
		if _, err := io.ReadFull(in, body); err != nil {
			return // cut off, as it should be
		}
		if chunked {
			b, err := rec.chunks(in)
			if err != nil {
				return
			}
			body = []byte(b)
		}
		method, rest, _ := strings.Cut(head, " ")
		target, _, _ := strings.Cut(rest, " ")
		rec.note(&rec.requests, "%s", strings.TrimSpace(fmt.Sprintf("%s %s %s", method, target, body)))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

var (
	requestLine = regexp.MustCompile(`^[A-Z]+ /[!-~]* HTTP/1\.1$`)
	fieldLine   = regexp.MustCompile("^([!#$%&'*+.^`|~0-9A-Za-z_-]+): ?([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$")
	chunkLine   = regexp.MustCompile(`^[0-9a-f]+\r\n$`)
)

// judge notes what is ambiguous in a head, and says how its body ends.
func (rec *recorder) judge(head string) (length int, chunked bool) {
	fields := map[string][]string{}
	for i, line := range strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n") {
		if i == 0 {
			if !requestLine.MatchString(line) {
				rec.note(&rec.faults, "request line %q", line)
			}
			continue
		}
		m := fieldLine.FindStringSubmatch(line)
		if m == nil {
			rec.note(&rec.faults, "field line %q", line)
			continue
		}
		// As a backend that can't tell "_" from "-" does.
		name := strings.ReplaceAll(strings.ToLower(m[1]), "_", "-")
		fields[name] = append(fields[name], m[2])
	}
	for _, name := range []string{"host", "content-length", "transfer-encoding", "authorization", "origin", "content-type", "connection", "upgrade"} {
		if len(fields[name]) > 1 {
			rec.note(&rec.faults, "%d fields %s", len(fields[name]), name)
		}
	}
	if host := fields["host"]; len(host) != 1 || !validAuthority(host[0]) || host[0] == "" {
		rec.note(&rec.faults, "host %q", host)
	}
	if len(fields["content-length"]) > 0 && len(fields["transfer-encoding"]) > 0 {
		rec.note(&rec.faults, "content length and transfer encoding")
	}
	if values := fields["content-length"]; len(values) > 0 {
		n, err := strconv.ParseUint(values[0], 10, 31)
		if err != nil {
			rec.note(&rec.faults, "content length %q", values[0])
		}
		length = int(n)
	}
	if values := fields["transfer-encoding"]; len(values) > 0 {
		if chunked = values[0] == "chunked"; !chunked {
			rec.note(&rec.faults, "transfer encoding %q", values[0])
		}
	}
	return length, chunked
}

// chunks reads a chunked body.
func (rec *recorder) chunks(in *bufio.Reader) (string, error) {
	var body strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if !chunkLine.MatchString(line) {
			rec.note(&rec.faults, "chunk %q", line)
		}
		n, _ := strconv.ParseUint(strings.TrimSpace(line), 16, 31)
		if n == 0 {
			break
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return "", err
		}
		body.Write(chunk[:n])
		if string(chunk[n:]) != "\r\n" {
			rec.note(&rec.faults, "chunk ends with %q", chunk[n:])
		}
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "\r\n" {
			return body.String(), err
		}
		if m := fieldLine.FindStringSubmatch(strings.TrimSuffix(line, "\r\n")); m == nil || !strings.HasPrefix(m[1], "X-") {
			rec.note(&rec.faults, "trailer %q", line)
		}
	}
}

// get and post begin requests that are as they should be.
const (
	get     = "GET /first HTTP/1.1\r\nHost: stent.test\r\n"
	post    = "POST /first HTTP/1.1\r\nHost: stent.test\r\n"
	hidden  = "GET /hidden HTTP/1.1\r\nHost: stent.test\r\n\r\n"
	goodbye = "GET /last HTTP/1.1\r\nHost: stent.test\r\nConnection: close\r\n\r\n"
)

// What clients send to make a backend see another request than stent does is
// refused, or reaches it in a form with one meaning.
func TestSmuggling(t *testing.T) {
	rec := newRecorder(t)
	s := prepare(t)
	s.run(s.yaml("http: true", fmt.Sprintf("limits: {handshake_timeout: 300ms}\nupstreams: {app: {targets: [%q]}}", "http://"+rec.Addr().String())), nil)

	for _, tt := range []struct {
		name, send string
		status     []int    // of all answers
		open       bool     // a further request is answered
		reach      []string // the backend
		// with and without are what the heads have, and have not.
		with, without []string
	}{
		{name: "as it should be", send: get + "\r\n" + post + "Content-Length: 2\r\n\r\nab" + post + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
			status: []int{200, 200, 200}, reach: []string{"GET /first", "POST /first ab", "POST /first ab"}},

		// Where a body ends (RFC 9112 section 6.3).
		{name: "CL.TE", send: post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			status: []int{200}, reach: []string{"POST /first"}},
		{name: "TE.CL", send: post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + hidden + strings.Repeat("x", 0x5c-len(hidden)) + "\r\n0\r\n\r\n",
			status: []int{200}, reach: []string{"POST /first " + hidden + strings.Repeat("x", 0x5c-len(hidden))}},
		{name: "TE.TE", send: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "chunked twice", send: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "a list", send: post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "gzip", send: post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "identity", send: post + "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc" + hidden, status: []int{501}},
		{name: "quoted", send: post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "vertical tab", send: post + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "tab", send: post + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", status: []int{200}, reach: []string{"POST /first"}},
		{name: "upper case", send: post + "TRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n", status: []int{200}, reach: []string{"POST /first"}},
		{name: "blank before the colon", send: post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "blank before the name", open: true, send: post + "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
			status: []int{200}, reach: []string{"POST /first 0"}, with: []string{"X: y Transfer-Encoding: chunked\r\n"}},
		{name: "empty", send: post + "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden, status: []int{501}},
		{name: "underscore", open: true, send: post + "Transfer_Encoding: chunked\r\nContent_Length: 99\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + get + "\r\n",
			status: []int{200, 200}, reach: []string{"POST /first 0", "GET /first"}, without: []string{"_"}},
		{name: "chunked in HTTP/1.0", send: "POST /first HTTP/1.0\r\nHost: stent.test\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, status: []int{200}, reach: []string{"POST /first 0"}},
		{name: "two lengths", send: post + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden, status: []int{400}},
		{name: "a list of lengths", send: post + "Content-Length: 0, 44\r\n\r\n" + hidden, status: []int{400}},
		{name: "the same length twice", open: true, send: post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", status: []int{200}, reach: []string{"POST /first ab"}},
		{name: "signed length", send: post + "Content-Length: +2\r\n\r\nab" + hidden, status: []int{400}},
		{name: "negative length", send: post + "Content-Length: -1\r\n\r\n" + hidden, status: []int{400}},
		{name: "hexadecimal length", send: post + "Content-Length: 0x10\r\n\r\n" + hidden, status: []int{400}},
		{name: "empty length", send: post + "Content-Length:\r\n\r\n" + hidden, status: []int{400}},
		{name: "enormous length", send: post + "Content-Length: 99999999999999999999\r\n\r\n" + hidden, status: []int{400}},
		{name: "length with a blank", send: post + "Content-Length: 1 2\r\n\r\nab" + hidden, status: []int{400}},
		{name: "a GET with a body", open: true, send: get + "Content-Length: 2\r\n\r\nab" + get + "\r\n", status: []int{200, 200}, reach: []string{"GET /first ab", "GET /first"}},
		{name: "a handshake with a body", send: handshake("/first", "Content-Length: "+strconv.Itoa(len(hidden))) + hidden, status: []int{400}},
		{name: "a handshake in chunks", send: handshake("/first", "Transfer-Encoding: chunked") + "0\r\n\r\n" + hidden, status: []int{400}},
		{name: "a handshake of another version", open: true, send: strings.Replace(handshake("/first"), "Version: 13", "Version: 777", 1) + hidden,
			status: []int{426, 200}, reach: []string{"GET /hidden"}},
		{name: "an upgrade to another protocol", open: true, send: get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + get + "\r\n",
			status: []int{200, 200}, reach: []string{"GET /first", "GET /first"}, without: []string{"h2c", "HTTP2", "Upgrade"}},

		// Chunks (section 7.1).
		{name: "chunk extension", send: post + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n0;c\r\n\r\n" + hidden, status: []int{200}, reach: []string{"POST /first ab"}},
		{name: "quoted chunk extension", send: post + "Transfer-Encoding: chunked\r\n\r\n2;a=\"\r\nab\r\n0\r\n\r\n" + hidden, status: []int{200}, reach: []string{"POST /first ab"}},
		{name: "chunk size in hexadecimal", send: post + "Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "negative chunk", send: post + "Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "enormous chunk", send: post + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "line feed after the size", send: post + "Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "line feed in an extension", send: post + "Transfer-Encoding: chunked\r\n\r\n2;\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "carriage return in an extension", send: post + "Transfer-Encoding: chunked\r\n\r\n2;a\rb\r\nab\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "chunk too long for its size", send: post + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n" + hidden, status: []int{400}},
		{name: "a request after a bad chunk", send: post + "Transfer-Encoding: chunked\r\n\r\nx\r\n" + hidden, status: []int{400}},
		{name: "trailers", send: post + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n", status: []int{200}, reach: []string{"POST /first ab"}},
		{name: "undeclared trailers", send: post + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nStent-Session: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n", status: []int{200}, reach: []string{"POST /first ab"}},
		{name: "forged trailers", send: post + "Trailer: Stent-Session, X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nStent-Session: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
			status: []int{200}, reach: []string{"POST /first ab"}, without: []string{"Stent-Session"}},
		{name: "a length in the trailers", send: post + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n" + hidden, status: []int{400}},

		// Lines (sections 2.2 and 5).
		{name: "line feeds alone", open: true, send: strings.ReplaceAll(get+"X-A: b\r\n\r\n", "\r\n", "\n"), status: []int{200}, reach: []string{"GET /first"}},
		{name: "carriage return in a value", send: get + "X-A: b\rX-B: c\r\n\r\n" + hidden, status: []int{400}},
		{name: "carriage return in the request line", send: "GET /first\rHTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "carriage return after the request line", send: "GET /first HTTP/1.1\r\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "carriage return in a name", send: get + "X-\rA: b\r\n\r\n" + hidden, status: []int{400}},
		{name: "NUL in a value", send: get + "X-A: b\x00c\r\n\r\n" + hidden, status: []int{400}},
		{name: "NUL in a name", send: get + "X-\x00A: b\r\n\r\n" + hidden, status: []int{400}},
		{name: "folded", open: true, send: get + "X-A: b\r\n\tc\r\n  d\r\n\r\n", status: []int{200}, reach: []string{"GET /first"}, with: []string{"X-A: b c d\r\n"}},
		{name: "folded length", open: true, send: post + "Content-Length:\r\n 2\r\n\r\nab", status: []int{200}, reach: []string{"POST /first ab"}, with: []string{"Content-Length: 2\r\n"}},
		{name: "folded first", send: "GET /first HTTP/1.1\r\n Host: evil.test\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "no name", send: get + ": b\r\n\r\n" + hidden, status: []int{400}},
		{name: "no colon", send: get + "X-A\r\n\r\n" + hidden, status: []int{400}},
		{name: "a name that is no token", send: get + "X(A): b\r\n\r\n" + hidden, status: []int{400}},
		{name: "blank lines before the request", send: "\r\n" + get + "\r\n", status: []int{400}},
		{name: "blanks in the request line", send: "GET  /first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "blank in the target", send: "GET /first /x HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "tab in the target", send: "GET /first\tx HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "lower case version", send: "GET /first http/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "HTTP/0.9", send: "GET /first\r\n\r\n" + hidden, status: []int{400}},
		{name: "HTTP/2", send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden, status: []int{400}},
		{name: "a method that is no token", send: "G(T /first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "fields that are there once", send: get + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n" + hidden, status: []int{400}},
		{name: "two origins", send: get + "Origin: https://a.test\r\nOrigin: https://b.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "fields that may be there twice", open: true, send: get + "X-A: b\r\nX-A: c\r\n\r\n", status: []int{200}, reach: []string{"GET /first"}, with: []string{"X-A: b\r\nX-A: c\r\n"}},
		{name: "too large", send: get + "X-A: " + strings.Repeat("b", 17<<10) + "\r\n\r\n" + hidden, status: []int{431}},
		{name: "too many", send: get + strings.Repeat("X-A: b\r\n", 17<<10/8) + "\r\n" + hidden, status: []int{431}},

		// Whom it is for (section 3.2).
		{name: "no host", send: "GET /first HTTP/1.1\r\n\r\n" + hidden, status: []int{400}},
		{name: "two hosts", send: get + "Host: evil.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "a list of hosts", send: "GET /first HTTP/1.1\r\nHost: stent.test, evil.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "host with a path", send: "GET /first HTTP/1.1\r\nHost: stent.test/evil\r\n\r\n" + hidden, status: []int{400}},
		{name: "host with a user", send: "GET /first HTTP/1.1\r\nHost: a@stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "host with a blank", send: "GET /first HTTP/1.1\r\nHost: stent.test evil.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "two ports", send: "GET /first HTTP/1.1\r\nHost: stent.test:80:81\r\n\r\n" + hidden, status: []int{400}},
		{name: "port too large", send: "GET /first HTTP/1.1\r\nHost: stent.test:65536\r\n\r\n" + hidden, status: []int{400}},
		{name: "no port", send: "GET /first HTTP/1.1\r\nHost: stent.test:x\r\n\r\n" + hidden, status: []int{400}},
		{name: "half an address", send: "GET /first HTTP/1.1\r\nHost: [::1\r\n\r\n" + hidden, status: []int{400}},
		{name: "encoded host", send: "GET /first HTTP/1.1\r\nHost: stent%2Etest\r\n\r\n" + hidden, status: []int{400}},
		{name: "host in underscores", open: true, send: get + "X_Forwarded_Host: evil.test\r\nHOST_: a\r\n\r\n", status: []int{200}, reach: []string{"GET /first"}, without: []string{"evil.test"}},
		{name: "absolute form", open: true, send: "GET http://stent.test/first?a HTTP/1.1\r\nHost: evil.test\r\n\r\n", status: []int{200}, reach: []string{"GET /first?a"},
			with: []string{"Host: stent.test\r\n"}, without: []string{"evil.test"}},
		{name: "absolute form without a path", open: true, send: "GET http://stent.test HTTP/1.1\r\nHost: stent.test\r\n\r\n", status: []int{200}, reach: []string{"GET /"}},
		{name: "absolute form of another scheme", send: "GET file://stent.test/first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "absolute form with a bad host", send: "GET http://a:b@stent.test:x/first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "absolute form with a user", open: true, send: "GET http://evil@stent.test/first HTTP/1.1\r\nHost: stent.test\r\n\r\n", status: []int{200}, reach: []string{"GET /first"}, without: []string{"evil"}},
		{name: "no scheme", send: "GET stent.test/first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "authority form", send: "CONNECT stent.test:443 HTTP/1.1\r\nHost: stent.test:443\r\n\r\n" + hidden, status: []int{400}},
		{name: "CONNECT to a path", send: "CONNECT /first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "asterisk form", send: "OPTIONS * HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "fragment", send: "GET /first#x HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "dot segments", send: "GET /x/../first HTTP/1.1\r\nHost: stent.test\r\n\r\n" + hidden, status: []int{400}},
		{name: "two slashes", open: true, send: "GET //evil.test/first HTTP/1.1\r\nHost: stent.test\r\n\r\n", status: []int{200}, reach: []string{"GET //evil.test/first"}, with: []string{"Host: stent.test\r\n"}},

		// Whom it is from.
		{name: "forged", open: true, send: get + "X-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Proto: https\r\nStent-Session: x\r\nX_Forwarded_For: 1.1.1.1\r\n\r\n",
			status: []int{200}, reach: []string{"GET /first"}, with: []string{"X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n"}, without: []string{"1.1.1.1", "Stent-Session", "https"}},
		{name: "fields of the connection", send: get + "Connection: X-A, X-Forwarded-For, Host, close\r\nX-A: b\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n\r\n" + hidden,
			status: []int{200}, reach: []string{"GET /first"}, with: []string{"Host: stent.test\r\n", "X-Forwarded-For: 127.0.0.1\r\n"}, without: []string{"X-A", "Keep-Alive", "Proxy-Connection"}},
		{name: "an expectation", send: post + "Expect: 200-maybe\r\nContent-Length: 2\r\n\r\nab" + hidden, status: []int{417}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dial()
			c.say(tt.send + goodbye)
			if tt.open {
				tt.status = append(tt.status, http.StatusOK)
				tt.reach = append(tt.reach, "GET /last")
			}
			c.SetReadDeadline(time.Now().Add(patience))
			var status []int
			for {
				resp, err := http.ReadResponse(c.in, nil)
				if err != nil {
					if ending(err) == "silence" {
						t.Error("the connection stays open")
					}
					break
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Errorf("body of the answer: %v", err)
				}
				status = append(status, resp.StatusCode)
			}
			if !slices.Equal(status, tt.status) {
				t.Errorf("answered %d, want %d", status, tt.status)
			}
			requests, faults, heads := rec.taken()
			if !slices.Equal(requests, tt.reach) {
				t.Errorf("the backend has read %q, want %q", requests, tt.reach)
			}
			all := strings.Join(heads, "")
			for _, fault := range faults {
				t.Errorf("the backend got: %s", fault)
			}
			for _, want := range tt.with {
				if !strings.Contains(all, want) {
					t.Errorf("the backend has not got %q", want)
				}
			}
			for _, bad := range tt.without {
				if strings.Contains(all, bad) {
					t.Errorf("the backend has got %q", bad)
				}
			}
			if t.Failed() {
				t.Logf("heads: %q", heads)
			}
		})
	}
}

// Nor does what follows such a request reach anybody where a plug has answered
// it.
func TestSmugglingPastPlugs(t *testing.T) {
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(auth.Close)
	for name, tt := range map[string]struct {
		route, top string
		want       int
	}{
		"before routing":    {"", "endpoint: [{redirect: {to: \"https://stent.test{uri}\", status: 308}}]", 308},
		"a problem":         {"pipe_through: [p]", "pipelines: {p: [{ip: {allow: [192.0.2.0/24]}}]}", 403},
		"another's refusal": {"pipe_through: [p]", "pipelines: {p: [{forward_auth: {url: \"" + auth.URL + "\"}}]}", 418},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, tt.route, tt.top, nil)
			for _, send := range []string{
				post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
				"POST /first HTTP/1.0\r\nHost: stent.test\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			} {
				c := s.dial()
				c.say(send)
				c.SetReadDeadline(time.Now().Add(patience))
				if got, _ := readStatus(t, c.in); got != tt.want {
					t.Errorf("got %d, want %d", got, tt.want)
				}
				if resp, err := http.ReadResponse(c.in, nil); err == nil {
					t.Errorf("then got %s", resp.Status)
				} else if ending(err) == "silence" {
					t.Error("the connection stays open")
				}
			}
		})
	}
}

func TestValidAuthority(t *testing.T) {
	for host, want := range map[string]bool{
		"": true, "a": true, "a.test": true, "a.test.": true, "A-b_c~d.test:8080": true, "127.0.0.1:1": true, "[::1]": true, "[::1]:443": true,
		"a:": true, "[::1]:": true, "a:0": true, "a:65535": true,
		"a:65536": false, "a:-1": false, "a:+1": false, "a:1:2": false, ":80": false, ":": false, "[]": false, "[::1": false, "::1": false, "[::1]x": false,
		"[fe80::1%eth0]": false, "[127.0.0.1]": false, "a b": false, "a/b": false, "a@b": false, "a,b": false, "a%2e": false, "ä": false, "a\\b": false, "a?": false, "a#": false,
		strings.Repeat("a", 256): false,
	} {
		if got := validAuthority(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

// What is taken for an authority is one to others as well.
func FuzzValidAuthority(f *testing.F) {
	for _, s := range []string{"a.test:80", "[::1]:443", "a:b", "a@b", "[::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !validAuthority(host) || host == "" {
			return
		}
		u, err := url.Parse("https://" + host + "/path")
		if err != nil || u.Host != host || u.Path != "/path" || u.User != nil {
			t.Errorf("%q is read as %+v, %v", host, u, err)
		}
	})
}
