package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/config"
)

// keyOf is the key that an error is about.
func keyOf(err error) string {
	key, _ := errors.AsType[*config.KeyError](err)
	if key == nil {
		return ""
	}
	return key.Path
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "authority"}})
	return a
}

// sign completes and signs a template; the first one is the authority's own.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.t.Fatal(err)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// client signs a client's certificate.
func (a *authority) client(template x509.Certificate) tls.Certificate {
	a.t.Helper()
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, key := a.sign(&template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// file writes the authority's certificate.
func (a *authority) file(path string) string {
	a.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// Clients without a certificate of the authority are refused in the
// handshake; the upstream learns whose the others are.
func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, other := newAuthority(t), newAuthority(t)
	pair := certify(t, dir, "stent.test")
	file := ca.file(filepath.Join(dir, "ca.crt"))
	s := prepare(t)
	s.listeners = fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{cert: %q, key: %q}], client_ca: %q}}]\n", pair.Cert, pair.Key, file)
	s.run(s.yaml("", ""), nil)
	l := s.proxy.listeners[0]
	spiffe, err := url.Parse("spiffe://example.com/a,b")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		id   string
		up   map[string]string
	}{
		{"a name", ca.client(x509.Certificate{Subject: pkix.Name{CommonName: "alice", Organization: []string{"Example"}}, EmailAddresses: []string{"alice@example.com"}}), "alice",
			map[string]string{"Subject": "CN=alice,O=Example", "Names": "alice@example.com"}},
		{"no common name", ca.client(x509.Certificate{URIs: []*url.URL{spiffe}, DNSNames: []string{"a.example.com"}}), "spiffe://example.com/a,b",
			map[string]string{"Subject": "", "Names": "spiffe://example.com/a%2Cb, a.example.com"}},
		{"what no header holds", ca.client(x509.Certificate{Subject: pkix.Name{CommonName: "a\r\nb: 100% ü"}}), "a\r\nb: 100% ü",
			map[string]string{"Subject": "CN=a%0D%0Ab: 100%25 %C3%BC", "Names": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newWire(t, tls.Client(dialed(t, l), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{tt.cert}}), true)
			c.say(handshake("/", "Stent-Client-Cert-Subject: CN=forged", "Stent-Client-Cert-Names: forged"))
			up := s.accept()
			for name, want := range tt.up {
				if got := strings.Join(up.request.Header["Stent-Client-Cert-"+name], "|"); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			leaf, err := x509.ParseCertificate(tt.cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, want := up.request.Header.Get("Stent-Client-Cert-Serial"), fmt.Sprintf("%x", leaf.SerialNumber); got != want {
				t.Errorf("serial %s, want %s", got, want)
			}
			if got := up.request.Header.Get("Stent-Client-Cert-Fingerprint"); len(got) != 64 {
				t.Errorf("fingerprint %q", got)
			}
			if got := s.session().Info().ID; got != tt.id {
				t.Errorf("id %q, want %q", got, tt.id)
			}
			up.say(up.switching())
			c.status()
			c.send(closing(1000, ""))
			up.rest()
			c.rest()
			s.over()
		})
	}
	for name, refused := range map[string]*tls.Config{
		"none":             {},
		"of somebody else": {Certificates: []tls.Certificate{other.client(x509.Certificate{})}},
		"expired":          {Certificates: []tls.Certificate{ca.client(x509.Certificate{NotAfter: time.Now().Add(-time.Minute)})}},
		"for a challenge":  {NextProtos: []string{acmeProtocol}},
		"older TLS":        {MaxVersion: tls.VersionTLS12},
	} {
		refused.InsecureSkipVerify = true
		conn := tls.Client(dialed(t, l), refused)
		// With TLS 1.3 the alert comes after the client's handshake is done.
		io.WriteString(conn, request("GET / HTTP/1.1"))
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if alert := tls.AlertError(0); !errors.As(err, &alert) {
			if !strings.Contains(fmt.Sprint(err), "tls:") {
				t.Errorf("%s: got %v, want an alert", name, err)
			}
		}
	}
	// Another authority from now on.
	other.file(file)
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(file, later, later); err != nil {
		t.Fatal(err)
	}
	l.certs.use(func() { l.certs.looked = time.Time{} })
	ok := tls.Client(dialed(t, l), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{other.client(x509.Certificate{})}})
	io.WriteString(ok, request("GET / HTTP/1.1"))
	if code, _ := readStatus(t, bufio.NewReader(ok)); code != http.StatusUpgradeRequired {
		t.Errorf("with the new authority: status %d", code)
	}
}

func TestClientCAErrors(t *testing.T) {
	dir := t.TempDir()
	pair := certify(t, dir, "one.test")
	junk := filepath.Join(dir, "junk.crt")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{junk, filepath.Join(dir, "none.crt"), pair.Key} {
		_, err := serverTLS(config.ListenerTLS{Certificates: []config.Certificate{pair}, ClientCA: name})
		if got := keyOf(err); got != "client_ca" {
			t.Errorf("%s: error %v is about %q", name, err, got)
		}
	}
}

// A new certificate serves new clients; who is there stays.
func TestCertificateSwapKeepsSessions(t *testing.T) {
	dir := t.TempDir()
	pair := certify(t, dir, "stent.test")
	s := prepare(t)
	s.listeners = fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", tls: {certificates: [{cert: %q, key: %q}]}}]\n", pair.Cert, pair.Key)
	s.run(s.yaml("", ""), nil)
	s.open()
	serial := func() string {
		t.Helper()
		c := tls.Client(dialed(t, s.proxy.listeners[0]), &tls.Config{InsecureSkipVerify: true})
		defer c.Close()
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	certify(t, dir, "stent.test")
	for deadline := time.Now().Add(patience); serial() == first; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served")
		}
		s.client.send(text("a"))
		s.upstream.expect("text a")
	}
	s.client.send(text("still here"))
	s.upstream.expect("text still here")
	s.upstream.send(text("so am I"))
	s.client.expect("text so am I")
}
