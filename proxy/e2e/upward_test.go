package e2e

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// TestRequestUpward: path and query go up byte for byte, the client's headers
// unchanged, those that it may not set anew, and stent's own beside them.
func TestRequestUpward(t *testing.T) {
	gate(t)
	targets := []string{
		"/echo/a%2Fb/%E2%98%83;v=1/x+y?a=1;b=2&c=%zz&d=a+b%20c&&=&e=%25",
		"/echo?",
		"/echo?q=%",
		"/echo?q='\"<>\\^`{|}",
		"/echo?\xe2\x98\x83=\xff",
		"/echo//double///slash",
		"/echo/%7Euser/%41?%41",
		"/echo/a:b@c$d!e*f(g)h,i",
		"/echo?" + strings.Repeat("long=query&", 700),
	}
	for _, w := range stentWays() {
		t.Run(string(w), func(t *testing.T) {
			heard := make(chan string, 1)
			up := listen(t, func(c *wire.Conn) {
				var raw bytes.Buffer
				c.Reader = bufio.NewReader(&tee{c.Reader, &raw})
				if c.Hear() == nil {
					heard <- raw.String()
					_, _ = c.Write(c.Welcome())
					_ = c.Rest()
				}
			})
			front := w.front(t, up, "")
			for _, target := range targets {
				conn, err := wire.Dial(front, wire.Hello("client.example:8080", target,
					"X-Twice: 1", "X-Twice: 2", "X-Empty:", "X-Spaces:   a  b   ", "Cookie: a=1; b=\"2\"",
					"Origin: https://client.example", "User-Agent: probe/1.0",
					"X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "Stent-Session: forged", "Stent-Attempt: 99",
				))
				if err != nil {
					t.Fatal(err)
				}
				status := conn.Answer.StatusCode
				_ = conn.Close()
				if status != http.StatusSwitchingProtocols {
					t.Errorf("%q is answered with %d", target, status)
					continue
				}
				checkUpward(t, target, <-heard)
			}
		})
	}
}

func checkUpward(t *testing.T, target, request string) {
	t.Helper()
	line, rest, _ := strings.Cut(request, "\r\n")
	if want := "GET " + target + " HTTP/1.1"; line != want {
		t.Errorf("the request line is\n\t%q\nand should be\n\t%q", line, want)
	}
	mime, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest))).ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header(mime)
	for name, want := range map[string][]string{
		"Host":                  {"client.example:8080"},
		"X-Twice":               {"1", "2"},
		"X-Empty":               {""},
		"X-Spaces":              {"a  b"},
		"Cookie":                {"a=1; b=\"2\""},
		"Origin":                {"https://client.example"},
		"User-Agent":            {"probe/1.0"},
		"Sec-Websocket-Version": {"13"},
		"X-Forwarded-For":       {"127.0.0.1"},
		"X-Forwarded-Proto":     {"http"},
		"X-Forwarded-Host":      {"client.example:8080"},
		"X-Real-Ip":             nil,
		"Forwarded":             nil,
		"Stent-Attempt":         {"1"},
	} {
		if got := h.Values(name); !slices.Equal(got, want) {
			t.Errorf("%s is %q and should be %q", name, got, want)
		}
	}
	if got := h.Get("Stent-Session"); got == "" || got == "forged" {
		t.Errorf("Stent-Session is %q", got)
	}
	if got := h.Get("X-Request-Id"); got == "" {
		t.Error("there is no X-Request-Id")
	}
	if got := h.Get("Sec-Websocket-Key"); strings.Contains(wire.Hello("h", "/"), got) {
		t.Errorf("Sec-WebSocket-Key %q is the client's", got)
	}
}

// tee keeps what is read.
type tee struct {
	from *bufio.Reader
	kept *bytes.Buffer
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.from.Read(p)
	t.kept.Write(p[:n])
	return n, err
}
