package longpoll

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/stentproxy/stent/proxy/frame"
)

const ndjson = "application/x-ndjson"

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, body string
		want                    []string
		err                     string
	}{
		{name: "text", contentType: "text/plain", body: "a\nb", want: []string{"text a\nb"}},
		{name: "no type", body: "a", want: []string{"text a"}},
		{name: "JSON", contentType: "application/json", body: "[1]", want: []string{"text [1]"}},
		{name: "bad type", contentType: "/;", body: "[1]", want: []string{"text [1]"}},
		{name: "lines", contentType: ndjson, body: "[1]\n[2]", want: []string{"text [1]", "text [2]"}},
		{name: "lines with parameters", contentType: "Application/X-NDJSON; charset=utf-8", body: "[1]\n[2]\n", want: []string{"text [1]", "text [2]"}},
		{name: "CRLF and empty lines", contentType: ndjson, body: "[1]\r\n\r\n\n[2]\r\n", want: []string{"text [1]", "text [2]"}},
		{name: "objects", contentType: ndjson, body: `{"a":1}`, want: []string{`text {"a":1}`}},
		{name: "base64", contentType: ndjson, body: "AAE=\n[1]\nAP8K", want: []string{"binary \x00\x01", "text [1]", "binary \x00\xff\n"}},
		{name: "more than a hundred", contentType: ndjson, body: string(bytes.Repeat([]byte("[1]\n"), 150)), want: slices.Repeat([]string{"text [1]"}, 150)},
		{name: "not base64", contentType: ndjson, body: "[1]\nAAE", err: "line 2 is neither JSON nor base64"},
		{name: "text line", contentType: ndjson, body: "hello", err: "line 1 is neither JSON nor base64"},
		{name: "line not UTF-8", contentType: ndjson, body: "[1]\n[\"\xff\"]", err: "line 2: the body is not UTF-8"},
		{name: "not UTF-8", body: "\xff", err: "the body is not UTF-8"},
		{name: "empty", err: "the body is empty"},
		{name: "only empty lines", contentType: ndjson, body: "\n\r\n", err: "the body is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			messages, err := Messages(tt.contentType, []byte(tt.body))
			if err != nil || tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			var got []string
			for m := range messages {
				got = append(got, fmt.Sprintf("%v %s", m.Type, m.Data))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What is taken of a body is its lines, each once and in order, and text is
// UTF-8.
func FuzzMessages(f *testing.F) {
	for _, body := range []string{"[1]\n[2]", "AAE=\r\n", "{}\n\n", "\xff", "!"} {
		f.Add(ndjson, []byte(body))
		f.Add("text/plain", []byte(body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		messages, err := Messages(contentType, body)
		if err != nil {
			return
		}
		var again [][]byte
		n := 0
		for m := range messages {
			n++
			switch m.Type {
			case frame.Text:
				if !utf8.Valid(m.Data) {
					t.Errorf("text %q", m.Data)
				}
				again = append(again, m.Data)
			case frame.Binary:
				again = append(again, []byte(base64.StdEncoding.EncodeToString(m.Data)))
			default:
				t.Errorf("type %v", m.Type)
			}
		}
		if n == 0 {
			t.Errorf("no message in %q", body)
		}
		joined := bytes.Join(again, []byte("\n"))
		if n == 1 && bytes.Equal(joined, body) {
			return
		}
		var want [][]byte
		for line := range lines(body) {
			if !isJSON(line) { // base64 has several forms of the same
				data, _ := base64.StdEncoding.DecodeString(string(line))
				line = []byte(base64.StdEncoding.EncodeToString(data))
			}
			if len(line) > 0 {
				want = append(want, line)
			}
		}
		if got := bytes.Join(slices.DeleteFunc(again, func(b []byte) bool { return len(b) == 0 }), []byte("\n")); !bytes.Equal(got, bytes.Join(want, []byte("\n"))) {
			t.Errorf("got %q of %q", got, body)
		}
		for range messages { // stops when it is told to
			break
		}
	})
}
