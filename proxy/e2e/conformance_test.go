package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// conformants are the servers of the conformance run, each with a row of its
// own for what the RFC leaves open. Those are left out that forget to answer
// a message when a close is right behind it.
var conformants = []string{"node-ws", "node-websocket", "go-gorilla", "go-gobwas", "go-gws", "go-coder"}

// TestConformance sends every probe to each server directly and through each
// way. In relay mode the row must be the server's own, but where the client
// breaks the protocol, which is for stent to tell both sides of. In message
// mode it must be right by itself.
func TestConformance(t *testing.T) {
	gate(t)
	for _, name := range conformants {
		t.Run(name, func(t *testing.T) {
			s := serverKindNamed(t, name).start(t)
			own := make(map[string][]string)
			for _, w := range ways() {
				t.Run(string(w), func(t *testing.T) {
					front := w.front(t, s.address, "")
					for _, p := range probes() {
						for _, pace := range []pace{atOnce, bytewise} {
							if pace == bytewise && p.bytes() > 200 || p.broken && !w.stent() {
								continue
							}
							began := time.Now()
							if !w.messages() {
								p.send = slices.Concat(p.send, p.tolerated)
							}
							row, seen := p.run(t, s, w, front, pace)
							if d := time.Since(began); d > time.Second {
								t.Errorf("%s, %s took %v: %q, %q", p.name, pace, d, row, seen)
							}
							if w == direct {
								if pace == atOnce {
									own[p.name] = row
								}
								continue
							}
							p.check(t, w, pace, own[p.name], row, seen)
						}
					}
				})
			}
		})
	}
}

// pace says in how many segments a probe is sent.
type pace string

const (
	atOnce   pace = "at once"
	bytewise pace = "byte by byte"
)

func (p probe) bytes() int {
	n := 0
	for _, f := range p.send {
		n += len(f.Payload)
	}
	return n
}

// run plays p and returns the client's row and how the server saw the end.
// More is further header lines of the client's.
func (p probe) run(t *testing.T, s *server, w way, front string, pace pace, more ...string) (row []string, seen string) {
	t.Helper()
	key := fmt.Sprintf("K%dK", keys.Add(1))
	conn, err := wire.Dial(front, wire.Hello(front, "/echo?k="+key, more...))
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer conn.Close()
	conn.Whole, conn.Inflate = w.messages(), new(wire.Inflater)
	var stream []byte
	for _, f := range p.send {
		stream = f.Append(stream)
		conn.Mute = conn.Mute || f.Op == wire.Close // one close is enough
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		step := len(stream)
		if pace == bytewise {
			step = 1
		}
		for chunk := range slices.Chunk(stream, step) {
			if _, err := conn.Write(chunk); err != nil {
				return // the row tells
			}
		}
	}()
	row = conn.UntilClose()
	<-sent
	if last := row[len(row)-1]; strings.HasPrefix(last, "close") {
		rest := conn.Rest()
		if end := rest[len(rest)-1]; end == "rst" || end == "fin" {
			rest[len(rest)-1] = "end" // unread data makes an end a reset
		}
		row = append(row, rest...)
	}
	_ = conn.Close()
	for _, event := range reportsUntilClose(s.reports, key) {
		seen = event
	}
	return row, seen
}

func (p probe) check(t *testing.T, w way, pace pace, own, got []string, seen string) {
	t.Helper()
	if !w.stent() {
		if pace == atOnce && !p.broken && !slices.Equal(got, own) {
			t.Errorf("%s: through %s the row is %q, directly %q", p.name, w, got, own)
		}
		return
	}
	if w == relay && !p.broken {
		if !slices.Equal(got, own) {
			t.Errorf("%s, %s: the row is\n\t%q\nand the server's own\n\t%q", p.name, pace, got, own)
		}
		return
	}
	if !matches(p.want, got) {
		t.Errorf("%s, %s: the row is\n\t%q\nand should be\n\t%q", p.name, pace, got, append(p.want, "end"))
	}
	if want := fmt.Sprintf("close %d", p.server); p.server != 0 && !strings.HasPrefix(seen, want) {
		t.Errorf("%s, %s: the server saw %q and should see %q", p.name, pace, seen, want)
	}
}

var code = regexp.MustCompile(`^close (\d+|"")`)

// matches reports whether row is want and then the connection's end.
func matches(want, row []string) bool {
	if len(row) != len(want)+1 || row[len(want)] != "end" {
		return false
	}
	for i, line := range want {
		codes, isClose := strings.CutPrefix(line, "close ")
		if !isClose {
			if row[i] != line {
				return false
			}
			continue
		}
		got := code.FindStringSubmatch(row[i])
		if got == nil || !slices.Contains(strings.Split(codes, "/"), got[1]) {
			return false
		}
	}
	return true
}
