package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// probe is one conversation of the conformance run: what a raw client sends
// to an echo server, and what it must see.
type probe struct {
	name string
	send []wire.Frame
	// want is the row of messages, by itself, in message mode; and in relay
	// mode too where the client breaks the protocol. A close is compared by
	// its code; "1002/1007" allows both.
	want []string
	// tolerated follows send on the ways where nobody need object to it.
	tolerated []wire.Frame
	// broken says that the client breaks the protocol (RFC 6455 section 7.1.7):
	// the close table's row holds in both modes, whatever the server is like.
	broken bool
	// server is the close code that the server must see when it is not the
	// client's own: where the probe is broken, or only message mode objects.
	server int
}

var (
	good   = text1("good")
	goodBy = bye1(1000, "bye")
)

func frame(op byte, payload string) wire.Frame {
	return wire.Frame{Op: op, Payload: []byte(payload)}.Masks()
}

func text1(s string) wire.Frame { return frame(wire.Text, s) }
func ping1(s string) wire.Frame { return frame(wire.Ping, s) }

func bye1(code int, reason string) wire.Frame {
	return wire.Frame{Op: wire.Close, Payload: wire.ClosePayload(code, reason)}.Masks()
}

// with returns f changed.
func with(f wire.Frame, change func(*wire.Frame)) wire.Frame {
	change(&f)
	return f
}

func open(f *wire.Frame) { f.Open = true }

// split returns the message as fragments at the given offsets.
func split(op byte, payload string, at ...int) []wire.Frame {
	var all []wire.Frame
	from := 0
	for _, to := range append(at, len(payload)) {
		all = append(all, with(frame(op, payload[from:to]), open))
		op, from = wire.Continuation, to
	}
	all[len(all)-1].Open = false
	return all
}

// probes returns the whole conformance run.
func probes() []probe {
	return slices.Concat(
		framingProbes(), reservedProbes(), pingProbes(), fragmentProbes(), textProbes(), closeProbes(),
	)
}

// echoed is a probe whose message comes back, followed by a good close.
func echoed(name string, want string, frames ...wire.Frame) probe {
	return probe{name: name, send: append(frames, goodBy), want: []string{want, `close 1000`}}
}

// breaks is a probe of a good message, then frames that break the protocol,
// then a good close that comes too late: the good message is answered first.
func breaks(name string, frames ...wire.Frame) probe {
	return probe{
		name:   name,
		send:   slices.Concat([]wire.Frame{good}, frames, []wire.Frame{goodBy}),
		want:   []string{`text "good"`, "close 1002"},
		broken: true,
		server: 1002,
	}
}

func framingProbes() []probe {
	var all []probe
	for _, size := range []int{0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 1 << 20} {
		s := strings.Repeat("*", size)
		all = append(all,
			echoed(fmt.Sprintf("text of %d bytes", size), (wire.Frame{Op: wire.Text, Payload: []byte(s)}).String(), text1(s)),
			echoed(fmt.Sprintf("binary of %d bytes", size), (wire.Frame{Op: wire.Binary, Payload: []byte(s)}).String(), frame(wire.Binary, s)),
		)
	}
	unmasked := text1("good")
	unmasked.Masked = false
	return append(all,
		echoed("mask of zeros", `text "good"`, with(good, func(f *wire.Frame) { f.Key = [4]byte{} })),
		breaks("unmasked", unmasked),
		breaks("unmasked close", with(goodBy, func(f *wire.Frame) { f.Masked = false })),
		breaks("length with the top bit", with(good, func(f *wire.Frame) { f.Form, f.Length = 64, 1<<63|5 })),
	)
}

func reservedProbes() []probe {
	var all []probe
	for _, rsv := range []byte{1, 2, 3, 4, 5, 6, 7} {
		set := func(f *wire.Frame) { f.RSV = rsv }
		all = append(all, breaks(fmt.Sprintf("rsv %d on text", rsv), with(text1("bad"), set)))
	}
	for _, rsv := range []byte{1, 2, 4} {
		set := func(f *wire.Frame) { f.RSV = rsv }
		all = append(all,
			breaks(fmt.Sprintf("rsv %d on ping", rsv), with(ping1("bad"), set)),
			breaks(fmt.Sprintf("rsv %d on close", rsv), with(goodBy, set)),
			breaks(fmt.Sprintf("rsv %d on a continuation", rsv), with(text1("ba"), open), with(frame(wire.Continuation, "d"), set)),
		)
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF} {
		all = append(all,
			breaks(fmt.Sprintf("opcode %d", op), frame(op, "")),
			breaks(fmt.Sprintf("opcode %d with payload", op), frame(op, "bad")),
		)
	}
	return all
}

func pingProbes() []probe {
	long := strings.Repeat("p", 125)
	odd := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	pong := func(s string) string { return wire.Frame{Op: wire.Pong, Payload: []byte(s)}.String() }
	ten := probe{name: "ten pings", want: nil}
	for i := range 10 {
		s := fmt.Sprintf("ping %d", i)
		ten.send = append(ten.send, ping1(s))
		ten.want = append(ten.want, pong(s))
	}
	ten.send, ten.want = append(ten.send, goodBy), append(ten.want, "close 1000")
	return []probe{
		echoed("ping, empty", pong(""), ping1("")),
		echoed("ping with text", pong("hello"), ping1("hello")),
		echoed("ping with binary", pong(odd), ping1(odd)),
		echoed("ping of 125 bytes", pong(long), ping1(long)),
		breaks("ping of 126 bytes", ping1(long+"p")),
		breaks("ping in fragments", with(ping1("a"), open), frame(wire.Continuation, "b")),
		breaks("pong of 126 bytes", frame(wire.Pong, long+"p")),
		echoed("pong unasked", `text "good"`, frame(wire.Pong, "who asked?"), good),
		echoed("pong unasked, empty", `text "good"`, frame(wire.Pong, ""), good),
		ten,
	}
}

func fragmentProbes() []probe {
	var bytewise []int
	for i := range 63 {
		bytewise = append(bytewise, i+1)
	}
	long := strings.Repeat("0123456789abcdef", 4)
	mid := split(wire.Text, "fragment", 4)
	alone := frame(wire.Continuation, "alone")
	empties := split(wire.Text, "", 0, 0)
	return []probe{
		echoed("two fragments", `text "fragment"`, mid...),
		echoed("fragments, some empty", `text "fragment"`, split(wire.Text, "fragment", 0, 4, 4, 8)...),
		echoed("fragments, all empty", `text ""`, empties...),
		echoed("64 fragments of a byte", fmt.Sprintf("text %q", long), split(wire.Text, long, bytewise...)...),
		echoed("binary fragments", `binary "fragment"`, split(wire.Binary, "fragment", 4)...),
		{
			name: "ping between fragments",
			send: []wire.Frame{mid[0], ping1("now"), mid[1], goodBy},
			want: []string{`pong "now"`, `text "fragment"`, "close 1000"},
		},
		{
			name: "pings between many fragments",
			send: slices.Concat(empties[:1], []wire.Frame{ping1("1")}, empties[1:2], []wire.Frame{ping1("2")}, empties[2:], []wire.Frame{goodBy}),
			want: []string{`pong "1"`, `pong "2"`, `text ""`, "close 1000"},
		},
		{
			name: "close between fragments",
			send: []wire.Frame{good, mid[0], goodBy},
			want: []string{`text "good"`, "close 1000"},
		},
		breaks("continuation of nothing", alone),
		breaks("open continuation of nothing", with(alone, open)),
		breaks("continuation of a whole message", text1("whole"), alone).wants(`text "good"`, `text "whole"`, "close 1002"),
		breaks("text inside a message", mid[0], text1("bad")),
		breaks("open text inside a message", mid[0], with(text1("bad"), open)),
		breaks("binary inside a message", mid[0], frame(wire.Binary, "bad")),
	}
}

func (p probe) wants(rows ...string) probe {
	p.want = rows
	return p
}

func textProbes() []probe {
	valid := []string{
		"κόσμε", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff",
		"\U00010000", "\U0003fffd", "\U0010ffff", "\ufeffbom", "é☃😀",
	}
	invalid := []string{
		"\x80", "\xbf", "\xfe", "\xff", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
		"κόσμ\xce", "κόσ\xce\xbc\xe1\xbd", "\xe2\x98", "\xf0\x9f\x98", "\xce", "good\xe2\x28\xa1",
	}
	var all []probe
	for _, s := range valid {
		all = append(all, echoed(fmt.Sprintf("valid text %q", s), wire.Frame{Op: wire.Text, Payload: []byte(s)}.String(), text1(s)))
	}
	every := "é☃😀"
	for i := 1; i < len(every); i++ {
		all = append(all, echoed(fmt.Sprintf("text split at byte %d", i), fmt.Sprintf("text %q", every), split(wire.Text, every, i)...))
	}
	for _, s := range invalid {
		all = append(all, spoilt("invalid text % x", s, text1(s)))
	}
	return append(all,
		spoilt("invalid text % x in the second fragment", "\xe2\x98 \xff", split(wire.Text, "\xe2\x98\xff", 2)...),
		spoilt("text cut short in the last fragment % x", "\xe2\x98", split(wire.Text, "ab\xe2\x98", 2)...),
		echoed("binary that is no text", (wire.Frame{Op: wire.Binary, Payload: []byte("\xff\xfe\xc0\xaf")}).String(), frame(wire.Binary, "\xff\xfe\xc0\xaf")),
	)
}

// spoilt is a probe that only message mode objects to: bad UTF-8.
func spoilt(format, s string, frames ...wire.Frame) probe {
	return probe{
		name:      fmt.Sprintf(format, s),
		send:      frames,
		tolerated: []wire.Frame{goodBy},
		want:      []string{"close 1007"},
		server:    1001,
	}
}

func closeProbes() []probe {
	var all []probe
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999} {
		all = append(all, probe{
			name: fmt.Sprintf("close %d", code),
			send: []wire.Frame{good, bye1(code, "why")},
			want: []string{`text "good"`, fmt.Sprintf("close %d", code)},
		})
	}
	for _, code := range []int{1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		all = append(all, breaks(fmt.Sprintf("close %d, no code for the wire", code), bye1(code, "why")))
	}
	closing := func(name string, f wire.Frame, code string, more ...wire.Frame) probe {
		return probe{name: name, send: slices.Concat([]wire.Frame{good, f}, more), want: []string{`text "good"`, "close " + code}}
	}
	long := bytes.Repeat([]byte("r"), 124)
	return append(all,
		closing("close without code", frame(wire.Close, ""), `""`),
		closing("close with no reason", bye1(1000, ""), "1000"),
		closing("close with the longest reason", bye1(4000, string(long[:123])), "4000"),
		closing("text after close", goodBy, "1000", text1("late")),
		closing("ping after close", goodBy, "1000", ping1("late")),
		closing("close after close", goodBy, "1000", bye1(1001, "again")),
		closing("nonsense after close", goodBy, "1000", frame(5, "late")),
		breaks("close of one byte", frame(wire.Close, "\x03")),
		breaks("close with too long a reason", bye1(1000, string(long))),
		breaks("close in fragments", with(goodBy, open), frame(wire.Continuation, "more")),
		// The reason is text too; in relay mode it is the server's to judge.
		probe{name: "close with bad text", send: []wire.Frame{bye1(1000, "\xff\xfe")}, want: []string{"close 1002/1007"}},
	)
}
