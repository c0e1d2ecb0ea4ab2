package mail

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers one SMTP client and returns what it sent.
func serve(t *testing.T) (address string, lines <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 200)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(got)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "220 test\r\n")
		data := false
		for in := bufio.NewScanner(conn); in.Scan(); {
			line := in.Text()
			got <- line
			switch {
			case data && line == ".":
				data = false
				fmt.Fprint(conn, "250 kept\r\n")
			case data:
			case line == "DATA":
				data = true
				fmt.Fprint(conn, "354 go on\r\n")
			case line == "QUIT":
				fmt.Fprint(conn, "221 bye\r\n")
			default:
				fmt.Fprint(conn, "250 fine\r\n")
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String(), got
}

func TestSend(t *testing.T) {
	address, lines := serve(t)
	s, err := NewSMTP("smtp://"+address+"?tls=none", "chat@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), "ann@example.com", "Willkommen, Änn", "your password"); err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range lines {
		all = append(all, line)
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{"MAIL FROM:<chat@example.com>", "RCPT TO:<ann@example.com>", "your password", "Subject: =?UTF-8?"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestNewSMTPRefuses(t *testing.T) {
	for _, address := range []string{"", "localhost:25", "http://x", "smtp://", "smtp://u:secret%zz@host", "smtp://u:secret@host:port"} {
		_, err := NewSMTP(address, "chat@example.com")
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", address, err)
		}
	}
	if _, err := NewSMTP("smtp://host", "nobody"); err == nil {
		t.Error("took a sender without a domain")
	}
}

func TestCheckAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"ann@example.com": true, "a.b+c@sub.example.com": true,
		"": false, "ann": false, "ann@": false, "@x": false, "Ann <ann@example.com>": false,
		"ann@example.com\r\nBcc: eve@example.com": false, "a@x.com,b@x.com": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", address, err, ok)
		}
	}
}
