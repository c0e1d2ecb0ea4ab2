package proxy

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/frame"
)

// wire is one end of a WebSocket connection as bytes: nothing happens on it
// but what a test says. What arrives is told in words, one event for each
// frame and one for the end of the stream:
//
//	text ab       a whole text message
//	text+ ab      its first frame, more follow
//	cont+ cd      a further frame
//	cont ef       the last one
//	binary 4096B  a long payload is told by its length
//	deflated text ab
//	ping ~        a ping of stent's own
//	close 1000 bye
//	close         one without a code
//	torn          the stream ended inside a frame
//	fin, rst      how the stream ended
//	silence       nothing came within patience
type wire struct {
	net.Conn
	t       *testing.T
	in      *bufio.Reader
	masks   bool // a client's end
	request *http.Request
	// mute answers neither pings nor closes.
	mute   bool
	closed bool // a close frame was sent
	ended  string
}

func newWire(t *testing.T, c net.Conn, masks bool) *wire {
	return &wire{Conn: c, t: t, in: bufio.NewReaderSize(c, 8<<10), masks: masks}
}

// sent is one frame to be sent, or raw bytes.
type sent struct {
	h       frame.Header
	payload []byte
	raw     []byte
}

func text(s string) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Text}, payload: []byte(s)}
}
func binary(n int) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Binary}, payload: make([]byte, n)}
}
func first(s string) sent { return sent{h: frame.Header{Opcode: frame.Text}, payload: []byte(s)} }
func middle(s string) sent {
	return sent{h: frame.Header{Opcode: frame.Continuation}, payload: []byte(s)}
}
func last(s string) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Continuation}, payload: []byte(s)}
}
func ping(s string) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Ping}, payload: []byte(s)}
}

// closing is a close frame; code 0 is one without a body.
func closing(code int, reason string) sent {
	return sent{h: frame.Header{Fin: true, Opcode: frame.Close}, payload: frame.AppendClose(nil, code, reason)}
}

// deflated is a message compressed by itself.
func deflated(data []byte) sent {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(data)
	w.Flush()
	return sent{h: frame.Header{Fin: true, Rsv: frame.Rsv1, Opcode: frame.Text}, payload: bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})}
}

// raw is bytes that no frame builder would write.
func raw(b ...byte) sent { return sent{raw: b} }

// encode writes a frame as this end has to.
func (w *wire) encode(s sent) []byte {
	if s.raw != nil {
		return s.raw
	}
	if s.h.Masked = w.masks; w.masks {
		s.h.Key = [4]byte{0xde, 0xad, 0xbe, 0xef}
	}
	return frame.AppendFrame(nil, s.h, s.payload)
}

// misfit is a frame masked as only the other end's are.
func (w *wire) misfit(s sent) sent {
	s.h.Masked = !w.masks
	return sent{raw: frame.AppendFrame(nil, s.h, s.payload)}
}

// part is the first n bytes of a frame.
func (w *wire) part(s sent, n int) sent { return sent{raw: w.encode(s)[:n]} }

// beyond is what part has left out.
func (w *wire) beyond(s sent, n int) sent { return sent{raw: w.encode(s)[n:]} }

// send writes frames, all in one go.
func (w *wire) send(frames ...sent) {
	w.t.Helper()
	var b []byte
	for _, f := range frames {
		b = append(b, w.encode(f)...)
		w.closed = w.closed || f.h.Opcode == frame.Close
	}
	w.SetWriteDeadline(time.Now().Add(patience))
	if _, err := w.Write(b); err != nil {
		w.t.Errorf("send: %v", err)
	}
}

// flood writes messages of 64 KiB until n bytes are written or nothing more
// is taken, and returns how it ended.
func (w *wire) flood(n int) error {
	b := w.encode(binary(64 << 10))
	for range n / len(b) {
		w.SetWriteDeadline(time.Now().Add(patience))
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// halfClose ends what is sent; the other direction stays open.
func (w *wire) halfClose() { w.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// reset cuts the connection with a RST.
func (w *wire) reset() {
	w.tcp().SetLinger(0)
	w.tcp().Close()
}

// tcp is the connection below.
func (w *wire) tcp() *net.TCPConn {
	if c, ok := w.Conn.(*tls.Conn); ok {
		return c.NetConn().(*net.TCPConn)
	}
	return w.Conn.(*net.TCPConn)
}

// next returns the next event.
func (w *wire) next() string {
	event, _ := w.read()
	return event
}

// read returns the next event with its frame's header.
func (w *wire) read() (string, frame.Header) {
	if w.ended != "" {
		return w.ended, frame.Header{}
	}
	w.SetReadDeadline(time.Now().Add(patience))
	var h frame.Header
	size := 0
	for have := 1; size == 0; have++ {
		b, err := w.in.Peek(have)
		if err != nil {
			w.ended = ending(err)
			if len(b) > 0 {
				return "torn", h
			}
			return w.ended, h
		}
		if h, size, err = frame.ParseHeader(b); err != nil {
			return "nonsense: " + err.Error(), h
		}
	}
	w.in.Discard(size)
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(w.in, payload); err != nil {
		w.ended = ending(err)
		return "torn", h
	}
	if h.Masked {
		frame.Mask(h.Key, 0, payload)
	}
	event := describe(h, payload)
	if h.Masked == w.masks {
		event = "wrongly masked " + event
	}
	w.answer(h, payload)
	return event, h
}

// answer does what a polite endpoint does about pings and closes.
func (w *wire) answer(h frame.Header, payload []byte) {
	switch {
	case w.mute:
	case h.Opcode == frame.Ping:
		w.reply(sent{h: frame.Header{Fin: true, Opcode: frame.Pong}, payload: payload})
	case h.Opcode == frame.Close && !w.closed:
		w.reply(sent{h: frame.Header{Fin: true, Opcode: frame.Close}, payload: payload})
	}
}

// reply sends to a peer that may be gone.
func (w *wire) reply(s sent) {
	w.closed = w.closed || s.h.Opcode == frame.Close
	w.SetWriteDeadline(time.Now().Add(patience))
	w.Write(w.encode(s))
}

func ending(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "fin"
	case errors.Is(err, syscall.ECONNRESET):
		return "rst"
	case errors.As(err, &late) && late.Timeout():
		return "silence"
	}
	return err.Error()
}

// describe puts a frame into words.
func describe(h frame.Header, payload []byte) string {
	var b strings.Builder
	if h.Rsv == frame.Rsv1 && h.Fin {
		b.WriteString("deflated ")
		tail := []byte{0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff}
		plain, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), bytes.NewReader(tail))))
		if err != nil {
			return "deflated badly: " + err.Error()
		}
		payload = plain
	} else if h.Rsv != 0 {
		fmt.Fprintf(&b, "rsv%x ", h.Rsv>>4)
	}
	switch h.Opcode {
	case frame.Continuation:
		b.WriteString("cont")
	case frame.Close:
		code, reason, err := frame.ParseClose(payload)
		switch {
		case err != nil:
			return fmt.Sprintf("close % x", payload)
		case code == frame.NoCode:
			return "close"
		}
		return strings.TrimSpace(fmt.Sprintf("close %d %s", code, reason))
	default:
		b.WriteString(h.Opcode.String())
	}
	if !h.Fin {
		b.WriteByte('+')
	}
	switch {
	case h.Opcode.Control() && len(payload) == 8:
		b.WriteString(" ~")
	case len(payload) > 64:
		fmt.Fprintf(&b, " %dB", len(payload))
	case len(payload) > 0:
		b.WriteByte(' ')
		b.Write(payload)
	}
	return b.String()
}

// expect reads events and compares them.
func (w *wire) expect(want ...string) {
	w.t.Helper()
	for i := range want {
		if got := w.next(); got != want[i] {
			w.t.Fatalf("event %d: got %q, want %q", i, got, want[i])
		}
	}
}

// rest reads all events to the end of the stream and closes the connection.
// Pings of stent's own that it answers are not told.
func (w *wire) rest() []string {
	defer w.Close()
	var events []string
	for {
		event, h := w.read()
		if h.Opcode == frame.Ping && !w.mute && event == "ping ~" {
			continue
		}
		events = append(events, event)
		if event == w.ended || strings.HasPrefix(event, "nonsense") {
			return events
		}
	}
}

// saw compares events, where a "..." in want stands for any number of them.
func saw(got, want []string) bool {
	for i, w := range want {
		if w != "..." {
			if i >= len(got) || got[i] != w {
				return false
			}
			continue
		}
		for j := i; j <= len(got); j++ {
			if saw(got[j:], want[i+1:]) {
				return true
			}
		}
		return false
	}
	return len(got) == len(want)
}

// status reads the answer to a handshake or another request.
func (w *wire) status() *http.Response {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Fatalf("read the answer: %v", err)
	}
	return resp
}

// say writes plain text.
func (w *wire) say(s string) {
	w.t.Helper()
	w.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(w, s); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// switching is the 101 to the request that this upstream's end has got.
func (w *wire) switching(header ...string) string {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	sum := sha1.Sum([]byte(w.request.Header.Get("Sec-Websocket-Key") + guid))
	lines := append([]string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:])}, header...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// handshake is a client's request for a session.
func handshake(target string, header ...string) string {
	return request("GET "+target+" HTTP/1.1", append([]string{"Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="}, header...)...)
}

// request is any request to a host called stent.test.
func request(line string, header ...string) string {
	return strings.Join(append([]string{line, "Host: stent.test"}, header...), "\r\n") + "\r\n\r\n"
}

// stage is a proxy between a raw client and a raw upstream.
type stage struct {
	t     *testing.T
	proxy *Proxy
	log   *observer.ObservedLogs
	stop  func() // ends the proxy's Run, which drains
	done  <-chan error
	// listeners is the file's, "" for a plain one.
	listeners string
	// targets is where the proxy dials, app; identity is set where that is TLS.
	targets  net.Listener
	identity *tls.Config
	// client and upstream are the two ends that open has connected; offer
	// and agree are what their handshakes say beyond the least.
	client, upstream *wire
	offer, agree     []string
	// fault, where set, is called where a worker may panic.
	fault atomic.Pointer[func(*Session, faultPoint)]
}

// noKeepalive keeps a loaded machine from being taken for a dead peer.
const quietRoute = "keepalive: {interval: 0s}"

// newStage runs a proxy with one route /* to one target. Route holds further
// keys of the route, one a line, and top further keys of the file.
func newStage(t *testing.T, route, top string, handlers map[string]NewHandler) *stage {
	t.Helper()
	return mode{}.stage(t, route, top, handlers)
}

// stage is newStage in this mode.
func (m mode) stage(t *testing.T, route, top string, handlers map[string]NewHandler) *stage {
	t.Helper()
	s := prepare(t)
	s.offer, s.agree = m.offer, m.agree
	if m.secure {
		pair := certify(t, t.TempDir(), "stent.test")
		s.listeners = fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{cert: %q, key: %q}]}}]\n", pair.Cert, pair.Key)
	}
	if strings.Contains(route, "handlers:") {
		m.route = strings.Replace(m.route, inMessage.route, "", 1)
	}
	s.run(s.yaml(lines(m.route, route), top), handlers)
	return s
}

// prepare is a stage without its proxy.
func prepare(t *testing.T) *stage {
	t.Helper()
	targets, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { targets.Close() })
	return &stage{t: t, targets: targets}
}

// newStageAlone runs a proxy with one route whose handlers are the
// application.
func newStageAlone(t *testing.T, handlers map[string]NewHandler) *stage {
	t.Helper()
	s := &stage{t: t}
	s.run("routes: [{path: /*, upstream: none, handlers: [own]}]", handlers)
	return s
}

// yaml is the stage's configuration.
func (s *stage) yaml(route, top string) string {
	var b strings.Builder
	b.WriteString("routes:\n  - path: /*\n    upstream: app\n")
	if !strings.Contains(route, "keepalive:") {
		route += "\n" + quietRoute
	}
	for line := range strings.Lines(route) {
		fmt.Fprintf(&b, "    %s\n", strings.TrimRight(line, "\n"))
	}
	top = strings.ReplaceAll(top, "TARGET", s.targets.Addr().String())
	b.WriteString(top + "\n")
	if !strings.Contains(top, "upstreams:") {
		fmt.Fprintf(&b, "upstreams: {app: {targets: [%q], dial: {timeout: 5s}}}\n", "ws://"+s.targets.Addr().String())
	}
	return b.String()
}

// parse reads a configuration; what every stage has is added.
func (s *stage) parse(yaml string) *config.Config {
	s.t.Helper()
	head := "admin: {address: \"off\"}\n" + s.listeners
	if s.listeners == "" {
		head += "listeners: [{address: \"127.0.0.1:0\"}]\n"
	}
	if !strings.Contains(yaml, "shutdown:") {
		head += "shutdown: {drain: 10s}\n"
	}
	cfg, err := config.Parse("test.yaml", []byte(head+yaml))
	if err != nil {
		s.t.Fatal(err)
	}
	return cfg
}

func (s *stage) run(yaml string, handlers map[string]NewHandler) {
	s.t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s.log = logs
	log := zaptest.NewLogger(s.t, zaptest.Level(zap.DebugLevel),
		zaptest.WrapOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewTee(c, core) })))
	var err error
	if s.proxy, err = New(s.parse(yaml), Options{Log: log, Handlers: handlers}); err != nil {
		s.t.Fatal(err)
	}
	s.proxy.fault = func(session *Session, at faultPoint) {
		if f := s.fault.Load(); f != nil {
			(*f)(session, at)
		}
	}
	if err := s.proxy.Listen(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.stop, s.done = cancel, done
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- s.proxy.Run(ctx)
	}()
	s.t.Cleanup(func() {
		s.proxy.Abort()
		select {
		case <-ended:
		case <-time.After(3 * patience):
			s.t.Error("the proxy does not end")
		}
		if n := s.proxy.registry.len(); n != 0 {
			s.t.Errorf("%d sessions outlive the proxy", n)
		}
	})
}

// dial connects a client that has sent nothing yet.
func (s *stage) dial() *wire {
	s.t.Helper()
	c, err := net.Dial("tcp", s.proxy.Addrs()[0].String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if s.listeners != "" {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	return newWire(s.t, c, true)
}

// accept takes the proxy's next dial and reads its request. A port that this
// stage has got may be one that a proxy elsewhere on the machine still dials.
func (s *stage) accept() *wire {
	s.t.Helper()
	for {
		s.targets.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		c, err := s.targets.Accept()
		if err != nil {
			s.t.Fatalf("no dial: %v", err)
		}
		s.t.Cleanup(func() { c.Close() })
		if s.identity != nil {
			c = tls.Server(c, s.identity)
		}
		w := newWire(s.t, c, false)
		w.SetReadDeadline(time.Now().Add(patience))
		if w.request, err = http.ReadRequest(w.in); err != nil {
			s.t.Fatalf("read the proxy's request: %v", err)
		}
		if key := w.request.Header.Get("Stent-Session"); s.proxy.Session(key) != nil {
			return w
		}
		s.t.Logf("dialled by a stranger: %v", w.request.Header)
		c.Close()
	}
}

// refuse resets all further dials. The port stays taken: another stage could
// get it, and this one's redials.
func (s *stage) refuse() {
	go func() {
		for {
			c, err := s.targets.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
}

// open connects client and upstream.
func (s *stage) open() {
	s.t.Helper()
	s.client = s.dial()
	s.client.say(handshake("/", s.offer...))
	s.next()
	if resp := s.client.status(); resp.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("client is answered %s", resp.Status)
	}
}

// next gives the session its next upstream.
func (s *stage) next() {
	s.t.Helper()
	s.upstream = s.accept()
	s.upstream.say(s.upstream.switching(s.agree...))
}

// session is the one that is open.
func (s *stage) session() *Session {
	s.t.Helper()
	all := s.proxy.Sessions()
	if len(all) != 1 {
		s.t.Fatalf("%d sessions are open, want 1", len(all))
	}
	return all[0]
}

// over waits until no session is left.
func (s *stage) over() {
	s.t.Helper()
	select {
	case <-s.proxy.registry.emptied():
	case <-time.After(patience):
		s.t.Fatalf("%d sessions are left", s.proxy.registry.len())
	}
}

// closed is what the log says of the session's end.
func (s *stage) closed() map[string]any {
	s.t.Helper()
	lines := s.log.FilterMessage("session closed").All()
	if len(lines) != 1 {
		s.t.Fatalf("%d lines say that a session closed, want 1", len(lines))
	}
	return lines[0].ContextMap()
}

// only makes a handler by its function.
func only(f func(*Session, Message) Result) map[string]NewHandler {
	return made(func() Handler { return handle(f) })
}

// made names a handler "own".
func made(f func() Handler) map[string]NewHandler {
	return map[string]NewHandler{"own": func(any) (func() Handler, error) { return f, nil }, "pass": testHandlers["pass"]}
}

// handle is a Handler of one function.
type handle func(*Session, Message) Result

// Message implements Handler.
func (h handle) Message(s *Session, m Message) Result { return h(s, m) }

// mode is one way for the frames.
type mode struct {
	name  string
	route string
	offer []string // of the client
	agree []string // of the upstream
	// secure says that the client speaks TLS.
	secure bool
}

const noContext = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

var (
	inRelay   = mode{name: "relay"}
	inMessage = mode{name: "message", route: "handlers: [pass]"}
	inDeflate = mode{name: "deflate", route: "compression: terminate",
		offer: []string{"Sec-WebSocket-Extensions: permessage-deflate"}, agree: []string{"Sec-WebSocket-Extensions: " + noContext}}
	inTLS     = mode{name: "relay over TLS", secure: true}
	anyMode   = []mode{inRelay, inMessage, inDeflate, inTLS}
	assembled = []mode{inMessage, inDeflate}
	relayed   = []mode{inRelay, inTLS}
)

// lines joins what is not empty.
func lines(s ...string) string {
	return strings.Join(slices.DeleteFunc(s, func(s string) bool { return s == "" }), "\n")
}
