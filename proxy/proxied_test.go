package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// v2 is a PROXY header of version 2.
func v2(t testing.TB, h proxyproto.Header, tlvs ...proxyproto.TLV) string {
	t.Helper()
	h.Version = 2
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tcpAddr(s string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// proxy2 is a version 2 header for a client at 192.0.2.7.
func proxy2(t testing.TB, tlvs ...proxyproto.TLV) string {
	return v2(t, proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: tcpAddr("192.0.2.7:5000"), DestinationAddr: tcpAddr("192.0.2.1:443")}, tlvs...)
}

const proxy1 = "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n"

// signature2 begins a header of version 2.
const signature2 = "\r\n\r\n\x00\r\nQUIT\n"

func TestReadProxyHeader(t *testing.T) {
	unix := v2(t, proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.UnixStream,
		SourceAddr: &net.UnixAddr{Net: "unix", Name: "/a"}, DestinationAddr: &net.UnixAddr{Net: "unix", Name: "/b"}})
	six := v2(t, proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
		SourceAddr: tcpAddr("[2001:db8::7]:5000"), DestinationAddr: tcpAddr("[2001:db8::1]:443")})
	for _, tt := range []struct {
		name, header string
		want         string // empty: the proxy's own address
		bad          bool
	}{
		{name: "version 1", header: proxy1, want: "192.0.2.7:5000"},
		{name: "version 1, shortest", header: "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", want: "1.1.1.1:1"},
		{name: "version 1, IPv6", header: "PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n", want: "[2001:db8::7]:5000"},
		{name: "version 1, unknown", header: "PROXY UNKNOWN\r\n"},
		{name: "version 1, unknown with addresses", header: "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"},
		{name: "version 2", header: proxy2(t), want: "192.0.2.7:5000"},
		{name: "version 2, IPv6", header: six, want: "[2001:db8::7]:5000"},
		{name: "version 2 with more", header: proxy2(t, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("chat.example.com")}), want: "192.0.2.7:5000"},
		{name: "version 2, local", header: signature2 + "\x20\x00\x00\x00"},
		{name: "version 2, local with junk", header: signature2 + "\x20\x00\x00\x03abc"},
		{name: "version 2, unspecified", header: signature2 + "\x21\x00\x00\x00"},

		{name: "none", header: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", bad: true},
		{name: "TLS", header: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh", bad: true},
		{name: "nothing", header: "", bad: true},
		{name: "half", header: proxy1[:20], bad: true},
		{name: "half of version 2", header: proxy2(t)[:20], bad: true},
		{name: "another protocol", header: "PROXY UDP4 192.0.2.7 192.0.2.1 5000 443\r\n", bad: true},
		{name: "no address", header: "PROXY TCP4 192.0.2.300 192.0.2.1 5000 443\r\n", bad: true},
		{name: "no port", header: "PROXY TCP4 192.0.2.7 192.0.2.1 70000 443\r\n", bad: true},
		{name: "another family", header: "PROXY TCP4 2001:db8::7 2001:db8::1 5000 443\r\n", bad: true},
		{name: "line feed alone", header: "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\n", bad: true},
		{name: "no end", header: "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", bad: true},
		{name: "two lines", header: "PROXY TCP4\r\n 192.0.2.7\r\n", bad: true},
		{name: "version 3", header: signature2 + "\x31\x11\x00\x0c" + strings.Repeat("a", 12), bad: true},
		{name: "too short for its addresses", header: signature2 + "\x21\x11\x00\x04abcd", bad: true},
		{name: "too long", header: signature2 + "\x21\x11\xff\xff" + strings.Repeat("a", 0xffff), bad: true},
		{name: "datagrams", header: signature2 + "\x21\x12\x00\x0c" + strings.Repeat("a", 12), bad: true},
		{name: "unix", header: unix, bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := strings.NewReader(tt.header + "what follows")
			if tt.bad && len(tt.header) < 30 && tt.name != "none" {
				r = strings.NewReader(tt.header)
			}
			source, err := readProxyHeader(r)
			if tt.bad {
				if err == nil {
					t.Errorf("read %v, want an error", source)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if source != nil {
				got = source.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "what follows" {
				t.Errorf("%q is left", rest)
			}
		})
	}
}

func FuzzReadProxyHeader(f *testing.F) {
	for _, s := range []string{proxy1, proxy2(f), "PROXY UNKNOWN\r\n", signature2 + "\x20\x00\x00\x03abc", signature2 + "\x21\x11\xff\xff", "GET / HTTP/1.1\r\n\r\n"} {
		f.Add([]byte(s), byte(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		whole := bytes.NewReader(b)
		source, err := readProxyHeader(whole)
		if read := len(b) - whole.Len(); read > mostProxyHeader {
			t.Fatalf("%d bytes were read", read)
		}
		if err == nil && source != nil && !addrOf(source).IsValid() {
			t.Errorf("source %v is no address", source)
		}
		// However it arrives.
		slow, slowErr := readProxyHeader(&dripping{b, int(step)%7 + 1})
		if (err == nil) != (slowErr == nil) || fmt.Sprint(source) != fmt.Sprint(slow) {
			t.Errorf("at once %v, %v; in parts %v, %v", source, err, slow, slowErr)
		}
	})
}

// dripping gives a few bytes at a time.
type dripping struct {
	b    []byte
	step int
}

func (d *dripping) Read(p []byte) (int, error) {
	if len(d.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), d.step)], d.b)
	d.b = d.b[n:]
	return n, nil
}

const proxiedListener = "listeners: [{address: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: [%s]}]\n"

// A proxy's PROXY header says whose session it is, in whatever pieces it
// comes, and on either engine: on the loop the socket below is taken.
func TestProxiedSession(t *testing.T) {
	frames := newWire(t, nil, true)
	for _, engine := range []string{"pump", "loop"} {
		if engine == "loop" && runtime.GOOS != "linux" {
			continue
		}
		for name, header := range map[string]string{"version 1": proxy1, "version 2": proxy2(t)} {
			for _, together := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %s together=%v", engine, name, together), func(t *testing.T) {
					t.Setenv(engineEnv, engine)
					s := prepare(t)
					s.listeners = fmt.Sprintf(proxiedListener, "127.0.0.1")
					s.run(s.yaml("", ""), nil)
					tcp, err := net.Dial("tcp", s.proxy.Addrs()[0].String())
					if err != nil {
						t.Fatal(err)
					}
					defer tcp.Close()
					c := newWire(t, tcp, true)
					all := header + handshake("/") + string(frames.encode(text("ahead")))
					if together {
						c.say(all)
					} else {
						tcp.(*net.TCPConn).SetNoDelay(true)
						for piece := range slices.Chunk([]byte(all[:len(header)+3]), 9) {
							c.say(string(piece))
						}
						c.say(all[len(header)+3:])
					}
					up := s.accept()
					if got := up.request.Header.Get("X-Forwarded-For"); got != "192.0.2.7" {
						t.Errorf("X-Forwarded-For is %q", got)
					}
					up.say(up.switching())
					if resp := c.status(); resp.StatusCode != http.StatusSwitchingProtocols {
						t.Fatal(resp.Status)
					}
					up.expect("text ahead")
					up.send(text("hello"))
					c.expect("text hello")
					info := s.session().Info()
					if info.Remote != "192.0.2.7" {
						t.Errorf("remote %s", info.Remote)
					}
					if info.Engine != engine {
						t.Errorf("the session is on the %s", info.Engine)
					}
					c.send(closing(1000, ""))
					up.expect("close 1000", "fin")
					c.expect("close 1000", "fin")
				})
			}
		}
	}
}

// Nobody else may send one, and who may must.
func TestProxyHeaderRefused(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct {
		name    string
		trusted string
		send    string
		want    string // of the answer's first line; empty: closed without one
	}{
		{"from a stranger", "192.0.2.0/24", proxy1 + get, "HTTP/1.1 400 Bad Request"},
		{"version 2 from a stranger", "192.0.2.0/24", proxy2(t) + get, "HTTP/1.1 400 Bad Request"},
		{"none from a stranger", "192.0.2.0/24", get, "HTTP/1.1 200 OK"},
		{"from a proxy", "127.0.0.0/8", proxy1 + get, "HTTP/1.1 200 OK"},
		{"two from a proxy", "127.0.0.0/8", proxy1 + proxy1 + get, "HTTP/1.1 400 Bad Request"},
		{"none from a proxy", "127.0.0.0/8", get, ""},
		{"nonsense from a proxy", "127.0.0.0/8", "PROXY TCP4 nonsense\r\n" + get, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config.Listener{ProxyProtocol: true, TrustedProxies: []config.CIDR{{Prefix: netip.MustParsePrefix(tt.trusted)}}}
			l := mustListen(t, c, testLimits(), http.HandlerFunc(hello))
			serve(t, l)
			conn := dialed(t, l)
			io.WriteString(conn, tt.send)
			line, _ := bufio.NewReader(conn).ReadString('\n')
			if got := strings.TrimRight(line, "\r\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A proxy that never finishes its header is cut off, and keeps nobody from
// being served.
func TestProxyHeaderTimeout(t *testing.T) {
	limits := testLimits()
	limits.HandshakeTimeout = config.Duration(100 * time.Millisecond)
	c := config.Listener{ProxyProtocol: true, TrustedProxies: []config.CIDR{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}}
	l := mustListen(t, c, limits, http.HandlerFunc(hello))
	serve(t, l)
	for _, begin := range []string{"", "P", proxy1[:20], signature2, proxy2(t)[:20]} {
		slow := dialed(t, l)
		io.WriteString(slow, begin)
		quick := dialed(t, l)
		io.WriteString(quick, proxy1+"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if code, _ := readStatus(t, bufio.NewReader(quick)); code != 200 {
			t.Errorf("beside %q: status %d", begin, code)
		}
		slow.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(slow); err != nil || len(b) > 0 {
			t.Errorf("%q: read %q, %v, want the end", begin, b, err)
		}
	}
}

// The PROXY header comes before TLS.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	c := config.Listener{
		ProxyProtocol:  true,
		TrustedProxies: []config.CIDR{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}},
		TLS:            &config.ListenerTLS{Certificates: []config.Certificate{certify(t, t.TempDir(), "one.test")}},
	}
	l := mustListen(t, c, testLimits(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.RemoteAddr)
	}))
	serve(t, l)
	raw := dialed(t, l)
	io.WriteString(raw, proxy1)
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if code, body := readStatus(t, bufio.NewReader(conn)); code != 200 || body != "192.0.2.7:5000" {
		t.Errorf("got %d %q", code, body)
	}
}

// blown is a connection that panics when it is read.
type blown struct{ net.Conn }

func (blown) Read([]byte) (int, error) { panic("a test's own fault") }

// A panic while the header is read ends that connection alone: net/http asks
// for the address before it recovers any.
func TestProxyHeaderPanic(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	p := &proxied{Conn: blown{a}, timeout: patience, log: zap.NewNop()}
	if got := p.RemoteAddr(); got != a.RemoteAddr() {
		t.Errorf("address %v", got)
	}
	if n, err := p.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v, want the end", n, err)
	}
}
