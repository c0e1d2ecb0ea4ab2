package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// acmeServer is a certificate authority on this machine.
type acmeServer struct {
	directory string
	trust     string         // the file of who signed its own certificate
	roots     *x509.CertPool // of those that it signs
}

// startACMEServer runs Pebble, which takes every name for one of this
// machine and sends its challenges to the given ports. Its certificates live
// for life.
func startACMEServer(t *testing.T, httpPort, tlsPort int, life time.Duration) *acmeServer {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	dns := freeAddress(t)
	names, err := challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{dns}, Log: log.New(io.Discard, "", 0)})
	if err != nil {
		t.Fatal(err)
	}
	names.SetDefaultDNSIPv6("")
	go names.Run()
	t.Cleanup(names.Shutdown)

	said := log.New(new(tail), "", 0)
	if testing.Verbose() {
		said = log.New(os.Stderr, "pebble ", log.Lmicroseconds)
	}
	store := db.NewMemoryStore()
	profiles := map[string]ca.Profile{"default": {Description: "short", ValidityPeriod: uint64(life / time.Second)}}
	authority := ca.New(said, store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(said, httpPort, tlsPort, false, dns, store)
	front := wfe.New(said, store, validator, authority, []string{"pebble.test"}, false, false, 1, 1)

	dir := t.TempDir()
	signer, certFile, keyFile := selfSigned(t, dir)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(front.Handler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)

	trust := filepath.Join(dir, "trust.pem")
	if err := os.WriteFile(trust, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signer.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.GetRootCert(0).Cert)
	return &acmeServer{directory: server.URL + wfe.DirectoryPath, trust: trust, roots: roots}
}

func portOf(t testing.TB, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// serving returns the certificate that a listener has for name, verified.
func (a *acmeServer) serving(address, name string) (*x509.Certificate, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{ServerName: name, RootCAs: a.roots}}
	c, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// await waits for a certificate that wanted accepts.
func (a *acmeServer) await(t *testing.T, address, name string, wanted func(*x509.Certificate) bool) *x509.Certificate {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	late := time.After(90 * time.Second)
	for {
		cert, err := a.serving(address, name)
		if err == nil && wanted(cert) {
			return cert
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("no such certificate for %s: %v", name, err)
		}
	}
}

// TestACME obtains a certificate from an ACME server by either challenge,
// keeps a session over it while it is renewed, and has it at once after a
// restart.
func TestACME(t *testing.T) {
	gate(t)
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			const name = "chat.stent.test"
			backend := serverKindNamed(t, "go-coder").start(t)
			storage := filepath.Join(t.TempDir(), "acme")
			_, certFile, keyFile := selfSigned(t, t.TempDir())
			plain, secure := freeAddress(t), freeAddress(t)
			dead := portOf(t, freeAddress(t))
			httpPort, tlsPort := dead, portOf(t, secure)
			if challenge == "http-01" {
				httpPort, tlsPort = portOf(t, plain), dead
			}
			const life = 24 * time.Second
			authority := startACMEServer(t, httpPort, tlsPort, life)
			listeners := func(string) string {
				l := fmt.Sprintf("\n  - address: %q\n    tls:\n      acme: {hosts: [%s], email: ops@stent.test, storage: %q, directory: %q}\n",
					secure, name, storage, authority.directory)
				if challenge == "http-01" {
					l += fmt.Sprintf("      certificates: [{cert: %q, key: %q}]\n  - {address: %q, redirect_https: true}\n", certFile, keyFile, plain)
				}
				return l
			}
			config := strings.Replace(route(backend.address, ""), "level: warn", "level: info", 1)
			s := startStentOn(t, listeners, config, "SSL_CERT_FILE="+authority.trust)

			first := authority.await(t, secure, name, func(*x509.Certificate) bool { return true })
			if got := first.NotAfter.Sub(first.NotBefore).Round(time.Second); got > life {
				t.Errorf("the certificate lives for %v", got)
			}
			if !strings.Contains(s.log.String(), `"challenge":"`+challenge+`"`) {
				t.Errorf("%s was not served", challenge)
			}
			// Other names have the file's certificate, or that of the first name.
			others := name
			if challenge == "http-01" {
				others = "localhost"
			}
			for _, asked := range []string{"localhost", "other.test", ""} {
				c, err := tls.Dial("tcp", secure, &tls.Config{ServerName: asked, InsecureSkipVerify: true})
				if err != nil {
					t.Errorf("asked for %q: %v", asked, err)
					continue
				}
				if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != others {
					t.Errorf("certificate of %s for %q, want that of %s", got, asked, others)
				}
				c.Close()
			}
			if challenge == "http-01" {
				resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Get("http://" + plain + "/.well-known/acme-challenge/other")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusPermanentRedirect {
					t.Errorf("another challenge is answered %s", resp.Status)
				}
			}

			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, "wss://"+secure+"/echo", &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: name, RootCAs: authority.roots}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			echo := func(text string) {
				t.Helper()
				if err := ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := ws.Read(ctx); err != nil || string(got) != text {
					t.Fatalf("got %q, %v, want %q", got, err, text)
				}
			}
			echo("before")
			second := authority.await(t, secure, name, func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(first.SerialNumber) != 0 })
			echo("after")
			ws.Close(websocket.StatusNormalClosure, "")

			// A restart asks for nothing that is in storage.
			s.stop(t)
			again := startStentOn(t, listeners, config, "SSL_CERT_FILE="+authority.trust)
			third := authority.await(t, secure, name, func(*x509.Certificate) bool { return true })
			if third.NotBefore.Before(second.NotBefore) {
				t.Error("an older certificate after the restart")
			}
			for _, log := range []string{s.log.String(), again.log.String()} {
				if strings.Contains(log, "PRIVATE KEY") {
					t.Error("the log has a private key")
				}
			}
		})
	}
}

// TestClientCertificate sends a client's name up to the backend, and refuses
// one without.
func TestClientCertificate(t *testing.T) {
	gate(t)
	dir := t.TempDir()
	_, certFile, keyFile := selfSigned(t, dir)
	authority, caFile, caKey := selfSigned(t, t.TempDir())
	signer, err := tls.LoadX509KeyPair(caFile, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "alice"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority, key.Public(), signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan http.Header, 1)
	backend := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case heard <- r.Header:
		default:
		}
		http.Error(w, "not today", http.StatusForbidden)
	}))
	s := startStentOn(t, func(address string) string {
		return fmt.Sprintf("[{address: %q, tls: {certificates: [{cert: %q, key: %q}], client_ca: %q}}]", address, certFile, keyFile, caFile)
	}, route(backend, ""))
	dial := func(certs ...tls.Certificate) (*http.Response, error) {
		ws, resp, err := websocket.Dial(t.Context(), "wss://"+s.address+"/", &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}},
		})
		if err == nil {
			ws.CloseNow()
		}
		return resp, err
	}
	if resp, err := dial(); resp != nil || err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v, %v", resp, err)
	}
	resp, err := dial(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	if resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Fatalf("with a certificate: %v, %v", resp, err)
	}
	if got := (<-heard).Get("Stent-Client-Cert-Subject"); got != "CN=alice" {
		t.Errorf("the backend heard of %q", got)
	}
}
