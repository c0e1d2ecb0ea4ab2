package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/play"
)

// selfSigned writes a certificate for this machine and its key into dir.
func selfSigned(t testing.TB, dir string) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, certFile, keyFile
}

// TestChromiumOverTLS plays the cases in a browser over wss, and compares
// with what it sees when it talks to the backend itself.
func TestChromiumOverTLS(t *testing.T) {
	gate(t)
	cert, certFile, keyFile := selfSigned(t, t.TempDir())
	pin := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	browser := clientKind{"chromium", playChromium}
	over := clientKind{"chromium over TLS", func(t testing.TB, base string, cases []play.Case) []play.Result {
		return playChromiumWith(t, strings.Replace(base, "ws://", "wss://", 1), cases,
			"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(pin[:]))
	}}
	server := serverKindNamed(t, "go-gorilla").start(t)
	want := playRows(t, browser, server, server.address, cases)
	steady(t, browser, server, want)
	for _, w := range []way{relay, rules, terminate} {
		t.Run(string(w), func(t *testing.T) {
			s := startStentOn(t, func(address string) string {
				return fmt.Sprintf("[{address: %q, tls: {certificates: [{cert: %q, key: %q}]}}]", address, certFile, keyFile)
			}, w.config(server.address, ""))
			got := playRows(t, over, server, s.address, cases)
			compare(t, w, browser, server, s.address, want, got)
		})
	}
}
