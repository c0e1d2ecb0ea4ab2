package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what has to come at once.
const patience = 20 * time.Second

// A pair makes the two ends of a connection: the leg's, and its peer's.
type pair func(t testing.TB) (own, peer net.Conn)

// pairs are the kinds of connection that a leg has to do with.
var pairs = map[string]pair{"tcp": tcpPair, "unix": unixPair, "tls": tlsPair}

func tcpPair(t testing.TB) (own, peer net.Conn) { return dialPair(t, "tcp", "127.0.0.1:0") }

func unixPair(t testing.TB) (own, peer net.Conn) {
	return dialPair(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func dialPair(t testing.TB, network, address string) (own, peer net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if peer, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if own, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close(); peer.Close() })
	return own, peer
}

// serverTLS is a certificate for tests, made once.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, DynamicRecordSizingDisabled: true}
})

func tlsPair(t testing.TB) (own, peer net.Conn) {
	t.Helper()
	a, b := tcpPair(t)
	server, client := shake(a, b, 0)
	return server, client
}

// eachPair runs a test on each kind of connection.
func eachPair(t *testing.T, f func(t *testing.T, p pair)) {
	for _, name := range []string{"tcp", "unix", "tls"} {
		t.Run(name, func(t *testing.T) { f(t, pairs[name]) })
	}
}

// eachProcs runs a test with 1, 2 and 4 processors.
func eachProcs(t *testing.T, f func(t *testing.T)) {
	for _, n := range []int{1, 2, 4} {
		t.Run("procs "+string(rune('0'+n)), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			f(t)
		})
	}
}

// soon fails the test, with every stack, when done is not closed in time.
func soon(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s: not in %s\n%s", what, patience, stacks[:runtime.Stack(stacks, true)])
	}
}

// background runs f and returns a channel that is closed when it returns.
func background(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}
