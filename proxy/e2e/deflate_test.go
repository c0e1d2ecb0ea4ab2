package e2e

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// offers are what a client may offer, the odd ones included.
var offers = []string{
	"",
	"permessage-deflate",
	"permessage-deflate; client_max_window_bits",
	"permessage-deflate; client_max_window_bits=10; server_max_window_bits=10",
	`permessage-deflate; client_max_window_bits="12"`,
	"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
	"permessage-deflate; server_max_window_bits=9, permessage-deflate",
	"x-unknown; a=1, permessage-deflate",
	"permessage-deflate; unknown_parameter",
	"permessage-deflate; client_max_window_bits=99",
	"x-webkit-deflate-frame",
}

// TestDeflateOffers: in relay mode the answer to each offer, and the bytes of
// a compressed conversation, are the server's own.
func TestDeflateOffers(t *testing.T) {
	gate(t)
	for _, name := range []string{"node-ws", "go-gorilla", "go-coder", "py-websockets"} {
		t.Run(name, func(t *testing.T) {
			s := serverKindNamed(t, name).start(t)
			own := make(map[string][]string)
			for _, w := range ways() {
				if w.messages() {
					continue
				}
				t.Run(string(w), func(t *testing.T) {
					front := w.front(t, s.address, "")
					for _, offer := range offers {
						row := negotiate(t, front, offer)
						if w == direct {
							own[offer] = row
						} else if !slices.Equal(row, own[offer]) {
							t.Errorf("%q: the row is\n\t%q\nand directly\n\t%q", offer, row, own[offer])
						}
					}
				})
			}
		})
	}
}

// negotiate offers, and speaks compressed where that is agreed.
func negotiate(t *testing.T, front, offer string) []string {
	t.Helper()
	var more []string
	if offer != "" {
		more = append(more, "Sec-WebSocket-Extensions: "+offer)
	}
	conn, err := wire.Dial(front, wire.Hello(front, "/echo", more...))
	if err != nil {
		t.Fatalf("%q: %v", offer, err)
	}
	defer conn.Close()
	answer := conn.Answer.Header.Values("Sec-WebSocket-Extensions")
	row := []string{fmt.Sprint(conn.Answer.StatusCode), strings.Join(answer, " & ")}
	if conn.Answer.StatusCode != 101 {
		return row
	}
	words := "to be, or not to be: that is the question"
	message := text1(words)
	if len(answer) > 0 {
		message = squeezed(words)
	}
	for _, f := range []wire.Frame{message, message, text1("plain"), goodBy} {
		if err := conn.Send(f); err != nil {
			t.Fatal(err)
		}
		reply, err := conn.Next()
		if err != nil {
			return append(row, err.Error())
		}
		row = append(row, reply.String())
	}
	return row
}

// squeezed returns a compressed text message.
func squeezed(s string) wire.Frame {
	return with(frame(wire.Text, string(wire.Deflate([]byte(s)))), rsv1)
}

func rsv1(f *wire.Frame) { f.RSV = 4 }

// deflated returns a text message whose compressed bytes are given.
func deflated(hexadecimal string) wire.Frame {
	data, err := hex.DecodeString(strings.ReplaceAll(hexadecimal, " ", ""))
	if err != nil {
		panic(err)
	}
	return with(frame(wire.Text, string(data)), rsv1)
}

// deflateProbes are the conversations of a compressed session. The bytes of
// the Hellos are the examples of RFC 7692 section 7.2.3.
func deflateProbes() []probe {
	words := strings.Repeat("compress me ", 1000)
	long := wire.Frame{Op: wire.Text, Payload: []byte(words)}.String()
	pieces := split(wire.Text, string(wire.Deflate([]byte(words))), 10, 11, 11)
	rsv1(&pieces[0])
	hello := `text "Hello"`
	first := deflated("f2 48 cd c9 c9 07 00")
	return []probe{
		echoed("compressed", long, squeezed(words)),
		echoed("compressed in fragments", long, pieces...),
		echoed("compressed, empty", `text ""`, deflated("00")),
		echoed("not compressed", `text "plain"`, text1("plain")),
		echoed("one block", hello, first),
		echoed("two blocks", hello, deflated("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")),
		echoed("a stored block", hello, deflated("00 05 00 fa ff 48 65 6c 6c 6f 00")),
		echoed("a final block", hello, deflated("f3 48 cd c9 c9 07 00 00")),
		{name: "each by itself", send: []wire.Frame{first, first, first, goodBy}, want: []string{hello, hello, hello, "close 1000"}},
		breaks("rsv 1 on a continuation", with(squeezed("bad"), open), with(frame(wire.Continuation, "x"), rsv1)),
		breaks("rsv 1 on a ping", with(ping1("bad"), rsv1)),
		breaks("rsv 2 on a compressed text", with(squeezed("bad"), func(f *wire.Frame) { f.RSV = 6 })),
		{name: "bytes that are not deflate", send: []wire.Frame{deflated("ff ff ff ff")}, want: []string{"close 1002/1007"}},
		{name: "compressed text that is no text", send: []wire.Frame{squeezed("\xff\xfe")}, want: []string{"close 1007"}, server: 1001},
		{name: "a bomb", send: []wire.Frame{squeezed(strings.Repeat("\x00", 64<<20))}, want: []string{"close 1009"}, server: 1001},
	}
}

// TestDeflateTerminated: with compression: terminate a compressed session is
// right by itself, before a server that compresses and one that does not.
func TestDeflateTerminated(t *testing.T) {
	gate(t)
	if !slices.Contains(ways(), terminate) {
		t.Skip("terminate is not asked for")
	}
	for _, name := range []string{"node-ws", "go-gobwas", "go-gorilla"} {
		t.Run(name, func(t *testing.T) {
			s := serverKindNamed(t, name).start(t)
			front := terminate.front(t, s.address, "")
			for _, offer := range offers {
				t.Run(offer, func(t *testing.T) {
					if got, want := negotiate(t, front, offer)[1], agreeable(offer); strings.HasPrefix(got, "permessage-deflate") != want {
						t.Fatalf("the answer is %q", got)
					} else if !want {
						return
					}
					for _, p := range deflateProbes() {
						row, seen := p.run(t, s, terminate, front, atOnce, "Sec-WebSocket-Extensions: "+offer)
						p.check(t, terminate, atOnce, nil, row, seen)
					}
				})
			}
		})
	}
}

// agreeable reports whether compression can be agreed to: not where every
// offer asks for a smaller window than stent's, or for what nobody knows.
func agreeable(offer string) bool {
	for one := range strings.SplitSeq(offer, ", ") {
		if strings.HasPrefix(one, "permessage-deflate") && !strings.Contains(one, "server_max_window_bits") &&
			!strings.Contains(one, "unknown") && !strings.Contains(one, "99") {
			return true
		}
	}
	return false
}
