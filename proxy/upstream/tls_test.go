package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// authority makes certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", true)
	return a
}

// issue writes NAME.crt and NAME.key for name.
func (a *authority) issue(t *testing.T, name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: ca, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".crt", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", secret)
	return cert, key
}

func (a *authority) write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(a.file(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// listenTLS serves with the certificate of name.
func listenTLS(t *testing.T, a *authority, name string, clients tls.ClientAuthType, serve script) string {
	t.Helper()
	a.issue(t, name, false)
	pair, err := tls.LoadX509KeyPair(a.file(name+".crt"), a.file(name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: clients, ClientCAs: roots,
		NextProtos: []string{"h2", "http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, serve)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "wss://localhost:" + port
}

func TestTLSTargets(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.issue(t, "client", false)
	theirs.issue(t, "client", false)
	protocol := make(chan string, 10)
	serve := func(c net.Conn, req *http.Request) {
		protocol <- c.(*tls.Conn).ConnectionState().NegotiatedProtocol
		welcome(c, req)
	}
	ca := ours.file("ca.crt")
	pair := func(a *authority) config.UpstreamTLS {
		return config.UpstreamTLS{CA: ca, Cert: a.file("client.crt"), Key: a.file("client.key")}
	}
	tests := []struct {
		name    string
		cert    string
		clients tls.ClientAuthType
		tls     config.UpstreamTLS
		want    string // part of the error; "" is none
	}{
		{"custom CA", "localhost", tls.NoClientCert, config.UpstreamTLS{CA: ca}, ""},
		{"unknown CA", "localhost", tls.NoClientCert, config.UpstreamTLS{}, "unknown authority"},
		{"another CA", "localhost", tls.NoClientCert, config.UpstreamTLS{CA: theirs.file("ca.crt")}, "unknown authority"},
		{"another name", "chat.internal", tls.NoClientCert, config.UpstreamTLS{CA: ca}, "not localhost"},
		{"server_name", "chat.internal", tls.NoClientCert, config.UpstreamTLS{CA: ca, ServerName: "chat.internal"}, ""},
		{"insecure_skip_verify", "chat.internal", tls.NoClientCert, config.UpstreamTLS{InsecureSkipVerify: true}, ""},
		{"client certificate", "localhost", tls.RequireAndVerifyClientCert, pair(ours), ""},
		{"no client certificate", "localhost", tls.RequireAndVerifyClientCert, config.UpstreamTLS{CA: ca}, "certificate required"},
		{"foreign client certificate", "localhost", tls.RequireAndVerifyClientCert, pair(theirs), "certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := upstreamOf(listenTLS(t, ours, tt.cert, tt.clients, serve))
			u.TLS = tt.tls
			c, err := newPoolOf(t, u).Dial(t.Context(), &Handshake{})
			if tt.want != "" {
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if got := <-protocol; got != "http/1.1" {
				t.Errorf("ALPN chose %q", got)
			}
		})
	}
}

// TestTLSReload replaces the CA file and reloads: the next dial uses it.
func TestTLSReload(t *testing.T) {
	a := newAuthority(t)
	ca := a.file("trusted.crt")
	a.write(t, "trusted.crt", "CERTIFICATE", newAuthority(t).cert.Raw)
	u := upstreamOf(listenTLS(t, a, "localhost", tls.NoClientCert, welcome))
	u.TLS.CA = ca
	pools := NewPools(Options{})
	p := update(t, pools, u)
	if _, err := p.Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	a.write(t, "trusted.crt", "CERTIFICATE", a.cert.Raw)
	update(t, pools, u)
	open(t, p).Close()
}

// TestTLSHandshakeTimeout dials a target that takes the connection and
// leaves the TLS handshake unanswered.
func TestTLSHandshakeTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes it
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u := upstreamOf("wss://" + l.Addr().String())
	u.Dial.Timeout = milliseconds(50)
	if _, err := newPoolOf(t, u).Dial(t.Context(), &Handshake{}); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

// footed counts what TLS writes to the connection that it stands on.
type footed struct {
	net.Conn
	writes int
}

func (f *footed) Write(b []byte) (int, error) {
	f.writes++
	return f.Conn.Write(b)
}

// TestTLSFooting writes as much as one record can hold.
func TestTLSFooting(t *testing.T) {
	a := newAuthority(t)
	u := upstreamOf(listenTLS(t, a, "localhost", tls.NoClientCert, welcome))
	u.TLS.CA = a.file("ca.crt")
	var below *footed
	p := update(t, NewPools(Options{Footing: func(conn net.Conn) net.Conn {
		below = &footed{Conn: conn}
		return below
	}}), u)
	c := open(t, p)
	defer c.Close()
	below.writes = 0
	if _, err := c.Write(make([]byte, 16<<10)); err != nil {
		t.Fatal(err)
	}
	if below.writes != 1 {
		t.Errorf("it is written as %d records, want 1", below.writes)
	}
}
