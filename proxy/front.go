package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// neighbours is what the listeners of one proxy know of each other.
type neighbours struct {
	// keepers are those of the listeners with TLS: their challenges are
	// answered wherever plain HTTP is spoken.
	keepers []*keeper
	// securePort is that of the first listener with TLS; empty without one.
	securePort string
}

// introduce tells listeners of each other, before they serve.
func introduce(listeners []*Listener) {
	n := new(neighbours)
	speaksPlain := false
	for _, l := range listeners {
		if l.certs == nil {
			speaksPlain = true
			continue
		}
		n.keepers = append(n.keepers, l.certs.keeper)
		if tcp, ok := l.Addr().(*net.TCPAddr); ok && n.securePort == "" {
			n.securePort = strconv.Itoa(tcp.Port)
		}
	}
	for _, l := range listeners {
		l.neighbours = n
	}
	for _, k := range n.keepers {
		k.plain = speaksPlain
	}
}

// front answers what a listener answers itself, before any plug: challenges
// of certificate authorities, and plain HTTP where https is wanted.
func (l *Listener) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growStack()
		if r.Body != http.NoBody {
			// Whoever reads the body gives it its own time. Where nobody does,
			// net/http wants it before it lets an answer out.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(l.limits.HandshakeTimeout.Std()))
		}
		switch {
		case r.TLS != nil:
			next.ServeHTTP(w, r)
		case l.challenged(w, r):
		case l.terms.Load().redirect && !l.cameSecure(r):
			l.redirect(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// challenged answers r where it is a challenge that one of the keepers waits
// for (RFC 8555 section 8.3).
func (l *Listener) challenged(w http.ResponseWriter, r *http.Request) bool {
	if l.neighbours == nil || !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		return false
	}
	for _, k := range l.neighbours.keepers {
		if k.answer(w, r) {
			return true
		}
	}
	return false
}

// cameSecure says whether a trusted proxy has ended the client's TLS.
func (l *Listener) cameSecure(r *http.Request) bool {
	if !contains(l.terms.Load().trusted, peerOf(r)) {
		return false
	}
	scheme, _ := schemeOf(lastElement(r.Header["X-Forwarded-Proto"]))
	return scheme == "https"
}

// redirect sends the client to where https is spoken. A client that names no
// port has come by that of http, mapped or not, and goes to that of https;
// one that names another is told ours.
func (l *Listener) redirect(w http.ResponseWriter, r *http.Request) {
	port := ""
	if _, named := splitPort(r.Host); named != "" && named != "80" && l.neighbours != nil {
		port = l.neighbours.securePort
	}
	url, ok := secureURL(r, port)
	if !ok {
		badRequest("the request names no host and path that could be redirected to https").ServeHTTP(w, r)
		return
	}
	w.Header().Set("Location", url)
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusPermanentRedirect)
}

// secureURL is the https URL of what r asks for.
func secureURL(r *http.Request, port string) (string, bool) {
	path, query, ok := rawTarget(r)
	if !ok || r.Host == "" || !validAuthority(r.Host) {
		return "", false
	}
	host, _ := splitPort(r.Host)
	if port != "" && port != "443" {
		host += ":" + port
	}
	return "https://" + host + path + query, true
}

// splitPort takes host[:port] apart; an IPv6 address keeps its brackets.
func splitPort(host string) (name, port string) {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host[:i], host[i+1:]
	}
	return host, ""
}

// mistaken is a connection below TLS that a client may have taken for a
// plain one: it is then redirected.
type mistaken struct {
	net.Conn
	headerSize int64
	sure       bool
}

// handshakeRecord is what TLS begins with (RFC 8446 section 5.1).
const handshakeRecord = 22

// Read implements net.Conn.
func (m *mistaken) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.sure || n == 0 {
		return n, err
	}
	m.sure = true
	if b[0] == handshakeRecord {
		return n, err
	}
	m.redirect(bytes.Clone(b[:n]))
	return 0, io.EOF
}

// redirect answers a plain request; the deadline is the handshake's.
func (m *mistaken) redirect(begin []byte) {
	rest := io.LimitReader(m.Conn, m.headerSize-int64(len(begin)))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(begin), rest)))
	if err != nil {
		return
	}
	_, port := splitPort(r.Host)
	if url, ok := secureURL(r, port); ok {
		fmt.Fprintf(m.Conn, "HTTP/1.1 308 Permanent Redirect\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", url)
	}
}
