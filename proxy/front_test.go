package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/stentproxy/stent/config"
)

// location asks a listener and returns status and Location of its answer.
func location(t *testing.T, c net.Conn, request string) (int, string) {
	t.Helper()
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Location")
}

func TestRedirectToHTTPS(t *testing.T) {
	pair := certify(t, t.TempDir(), "one.test")
	secure := mustListen(t, config.Listener{TLS: &config.ListenerTLS{Certificates: []config.Certificate{pair}}, RedirectHTTPS: true}, testLimits(), http.HandlerFunc(hello))
	plain := mustListen(t, config.Listener{RedirectHTTPS: true, TrustedProxies: []config.CIDR{{Prefix: netip.MustParsePrefix("127.0.0.2/32")}}}, testLimits(), http.HandlerFunc(hello))
	introduce([]*Listener{plain, secure})
	serve(t, secure)
	serve(t, plain)
	port := fmt.Sprint(secure.Addr().(*net.TCPAddr).Port)
	for _, tt := range []struct {
		name, request string
		status        int
		want          string
	}{
		{"path and query", "GET /a%2Fb;c?x=1;y=%zz HTTP/1.1\r\nHost: one.test\r\n\r\n", 308, "https://one.test/a%2Fb;c?x=1;y=%zz"},
		{"port of http", "GET / HTTP/1.1\r\nHost: one.test:80\r\n\r\n", 308, "https://one.test/"},
		{"another port", "GET / HTTP/1.1\r\nHost: one.test:8080\r\n\r\n", 308, "https://one.test:" + port + "/"},
		{"IPv6", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 308, "https://[::1]:" + port + "/"},
		{"absolute target", "GET http://two.test/x HTTP/1.1\r\nHost: one.test\r\n\r\n", 308, "https://two.test/x"},
		{"two slashes", "GET //evil.test/x HTTP/1.1\r\nHost: one.test\r\n\r\n", 308, "https://one.test//evil.test/x"},
		{"a POST", "POST /x HTTP/1.1\r\nHost: one.test\r\nContent-Length: 1\r\n\r\na", 308, "https://one.test/x"},
		{"a handshake", handshake("/socket"), 308, "https://stent.test/socket"},
		{"forged", "GET / HTTP/1.1\r\nHost: one.test\r\nX-Forwarded-Proto: https\r\n\r\n", 308, "https://one.test/"},
		{"bad host", "GET / HTTP/1.1\r\nHost: one.test:x\r\n\r\n", 400, ""},
		{"no host", "GET / HTTP/1.0\r\n\r\n", 400, ""},
		{"no path", "OPTIONS * HTTP/1.1\r\nHost: one.test\r\n\r\n", 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, got := location(t, dialed(t, plain), tt.request); status != tt.status || got != tt.want {
				t.Errorf("got %d %q, want %d %q", status, got, tt.status, tt.want)
			}
		})
	}
	t.Run("TLS ended before", func(t *testing.T) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := d.Dial("tcp", plain.Addr().String())
		if err != nil {
			t.Skip(err)
		}
		defer c.Close()
		if status, _ := location(t, c, "GET / HTTP/1.1\r\nHost: one.test\r\nX-Forwarded-Proto: https\r\n\r\n"); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
	})
	t.Run("plain where TLS is spoken", func(t *testing.T) {
		if status, got := location(t, dialed(t, secure), "GET /x?y HTTP/1.1\r\nHost: one.test:"+port+"\r\n\r\n"); status != 308 || got != "https://one.test:"+port+"/x?y" {
			t.Errorf("got %d %q", status, got)
		}
		if _, err := shaken(t, secure, &tls.Config{ServerName: "one.test"}); err != nil {
			t.Error(err)
		}
		junk := dialed(t, secure)
		io.WriteString(junk, "junk\r\n\r\n")
		if b, _ := io.ReadAll(junk); len(b) != 0 {
			t.Errorf("junk is answered %q", b)
		}
	})
	t.Run("no longer", func(t *testing.T) {
		if err := plain.Reload(config.Listener{}); err != nil {
			t.Fatal(err)
		}
		if status, _ := location(t, dialed(t, plain), "GET / HTTP/1.1\r\nHost: one.test\r\n\r\n"); status != 200 {
			t.Errorf("status %d, want 200", status)
		}
	})
}

// A plain request that never ends is cut off as a handshake is.
func TestRedirectOfASlowRequest(t *testing.T) {
	limits := testLimits()
	limits.HandshakeTimeout = config.Duration(50 * time.Millisecond)
	c := config.Listener{TLS: &config.ListenerTLS{Certificates: []config.Certificate{certify(t, t.TempDir(), "one.test")}}, RedirectHTTPS: true}
	l := mustListen(t, c, limits, http.HandlerFunc(hello))
	serve(t, l)
	conn := dialed(t, l)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: ")
	if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
		t.Errorf("read %q, %v, want the end", b, err)
	}
}

// Challenges that nobody waits for are ordinary requests.
func TestChallengeOfNobody(t *testing.T) {
	acme := &config.ACME{Hosts: []string{"one.test"}, Storage: t.TempDir(), Directory: "http://127.0.0.1:9/directory"}
	pair := certify(t, t.TempDir(), "two.test")
	secure := mustListen(t, config.Listener{TLS: &config.ListenerTLS{Certificates: []config.Certificate{pair}, ACME: acme}}, testLimits(), http.HandlerFunc(hello))
	plain := mustListen(t, config.Listener{}, testLimits(), http.HandlerFunc(hello))
	introduce([]*Listener{plain, secure})
	stop, _ := serve(t, secure)
	serve(t, plain)
	for _, host := range []string{"one.test", "other.test"} {
		if status, _ := location(t, dialed(t, plain), "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); status != 200 {
			t.Errorf("%s: status %d, want 200", host, status)
		}
	}
	// A name without a certificate gets none; others are not disturbed.
	if _, err := shaken(t, secure, &tls.Config{ServerName: "one.test"}); err == nil {
		t.Error("a certificate for a name that has none yet")
	}
	if _, err := shaken(t, secure, &tls.Config{ServerName: "one.test", NextProtos: []string{acmeProtocol}}); err == nil {
		t.Error("a challenge of nobody was answered")
	}
	for _, name := range []string{"two.test", "other.test", ""} {
		if _, err := shaken(t, secure, &tls.Config{ServerName: name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	stop()
}

func TestListenACMEStorage(t *testing.T) {
	c := config.Listener{Address: "127.0.0.1:0", TLS: &config.ListenerTLS{ACME: &config.ACME{Hosts: []string{"one.test"}, Storage: "/dev/null/acme"}}}
	l, err := Listen(t.Context(), c, testLimits(), http.HandlerFunc(hello), zap.NewNop())
	if err == nil {
		l.Close()
		t.Fatal("listens without a folder for its certificates")
	}
	if got, want := keyOf(err), "tls.acme.storage"; got != want {
		t.Errorf("error %v is about %q, want %q", err, got, want)
	}
}

// What is kept follows the configuration; files serve meanwhile.
func TestReloadOfACME(t *testing.T) {
	files := config.ListenerTLS{Certificates: []config.Certificate{certify(t, t.TempDir(), "file.test")}}
	l := mustListen(t, config.Listener{TLS: &files}, testLimits(), http.HandlerFunc(hello))
	serve(t, l)
	storage := t.TempDir()
	for _, hosts := range [][]string{{"one.test"}, {"two.test", "three.test"}, {"two.test", "three.test"}, nil, {"one.test"}} {
		next := files
		if hosts != nil {
			next.ACME = &config.ACME{Hosts: hosts, Storage: storage, Directory: "http://127.0.0.1:9/directory"}
		}
		before := l.certs.keeper.kept.Load()[0]
		if err := l.Reload(config.Listener{TLS: &next}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); hosts != nil; time.Sleep(time.Millisecond) {
			now := l.certs.keeper.kept.Load()[0]
			if now != nil && slices.Equal(now.hosts, hosts) {
				if before != nil && slices.Equal(before.hosts, hosts) && now != before {
					t.Error("begun anew without a change")
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q are not kept", hosts)
			}
		}
		for _, name := range []string{"one.test", "two.test"} {
			if got, want := l.certs.keeper.has(name), slices.Contains(hosts, name); got != want {
				t.Errorf("with %q, %s is kept: %v", hosts, name, got)
			}
		}
		if _, err := shaken(t, l, &tls.Config{ServerName: "file.test"}); err != nil {
			t.Errorf("with %q: %v", hosts, err)
		}
	}
	bad := files
	bad.ACME = &config.ACME{Hosts: []string{"bad.test"}, Storage: "/dev/null/acme"}
	if err := l.Reload(config.Listener{TLS: &bad}); err == nil || l.certs.keeper.has("bad.test") {
		t.Errorf("a bad reload: %v", err)
	}
}
