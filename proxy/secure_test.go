package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"syscall"
	"testing"
)

// A client's TLS is taken over from net/http by either engine, with what it
// holds, and whatever lies between it and the socket; and aborting such a
// session resets the socket.
func TestSecureSession(t *testing.T) {
	frames := newWire(t, nil, true)
	for _, engine := range []string{"pump", "loop"} {
		if engine == "loop" && runtime.GOOS != "linux" {
			continue
		}
		for name, tt := range map[string]struct{ terms, before string }{
			"alone":                 {},
			"behind a PROXY header": {", proxy_protocol: true, trusted_proxies: [127.0.0.1]", proxy1},
			"redirecting":           {", redirect_https: true", ""},
			"both":                  {", redirect_https: true, proxy_protocol: true, trusted_proxies: [127.0.0.1]", proxy1},
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprintf("%s %s %s", engine, name, tls.VersionName(version)), func(t *testing.T) {
					t.Setenv(engineEnv, engine)
					s := prepare(t)
					pair := certify(t, t.TempDir(), "stent.test")
					s.listeners = fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{cert: %q, key: %q}]}%s}]\n", pair.Cert, pair.Key, tt.terms)
					s.run(s.yaml("", ""), nil)
					tcp := dialed(t, s.proxy.listeners[0])
					if _, err := io.WriteString(tcp, tt.before); err != nil {
						t.Fatal(err)
					}
					c := newWire(t, tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}), true)
					c.say(handshake("/") + string(frames.encode(text("ahead"))))
					c.send(text("in a record of its own"))
					up := s.accept()
					up.say(up.switching())
					if resp := c.status(); resp.StatusCode != http.StatusSwitchingProtocols {
						t.Fatal(resp.Status)
					}
					up.expect("text ahead", "text in a record of its own")
					up.send(text("hello"), binary(100_000))
					c.expect("text hello", "binary 100000B")
					info := s.session().Info()
					if info.Engine != engine {
						t.Errorf("the session is on the %s", info.Engine)
					}
					if tt.before != "" && info.Remote != "192.0.2.7" {
						t.Errorf("remote %s", info.Remote)
					}
					// Lost inside a message whose start the client has.
					large := up.encode(binary(1 << 20))
					up.say(string(large[:200_000]))
					if _, err := io.ReadFull(c.Conn, make([]byte, 100_000)); err != nil {
						t.Fatal(err)
					}
					up.reset()
					if _, err := io.Copy(io.Discard, c.Conn); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("got %v, want a reset", err)
					}
					s.over()
				})
			}
		}
	}
}

// An upstream's TLS is taken over by either engine, where the session is there
// before its upstream and where one upstream follows another.
func TestSecureUpstream(t *testing.T) {
	for _, engine := range []string{"pump", "loop"} {
		if engine == "loop" && runtime.GOOS != "linux" {
			continue
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s %s", engine, tls.VersionName(version)), func(t *testing.T) {
				t.Setenv(engineEnv, engine)
				s := prepare(t)
				pair := certify(t, t.TempDir(), "stent.test")
				cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
				if err != nil {
					t.Fatal(err)
				}
				s.identity = &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version}
				s.run(s.yaml("continuity: {accept_early: true, hold: 20s, backoff: {min: 1ms, max: 10ms}}",
					"upstreams: {app: {targets: [\"wss://TARGET\"], tls: {insecure_skip_verify: true}}}"), nil)
				s.client = s.dial()
				s.client.say(handshake("/"))
				s.client.status()
				for range 3 {
					s.upstream = s.accept()
					s.client.send(text("held"))
					// The first message is read with the answer.
					s.upstream.say(s.upstream.switching() + string(s.upstream.encode(text("ahead"))))
					s.upstream.send(binary(100_000))
					s.client.expect("text ahead", "binary 100000B")
					s.upstream.expect("text held")
					s.client.send(binary(100_000))
					s.upstream.expect("binary 100000B")
					s.upstream.reset()
				}
				if got := s.session().Info().Engine; got != engine {
					t.Errorf("the session is on the %s", got)
				}
			})
		}
	}
}
