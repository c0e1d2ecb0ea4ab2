package e2e

import "github.com/stentproxy/stent/proxy/e2e/play"

// bye ends a case as a well-behaved client does.
var bye = play.Step{Op: "close", Code: 1000, Reason: "bye"}

func text(s string) play.Step   { return play.Step{Op: "text", Text: s} }
func binary(size int) play.Step { return play.Step{Op: "binary", Size: size} }

var recv = play.Step{Op: "recv"}

// cases are what every client does with every server.
var cases = []play.Case{
	{Name: "text", Target: "/echo", Steps: []play.Step{text("héllo wörld ☃ 😀"), recv, bye}},
	{Name: "binary", Target: "/echo", Steps: []play.Step{binary(64), recv, bye}},
	{Name: "empty", Target: "/echo", Steps: []play.Step{text(""), recv, binary(0), recv, bye}},
	{Name: "sizes", Target: "/echo", Steps: []play.Step{
		binary(125), recv, binary(126), recv, binary(127), recv,
		binary(65535), recv, binary(65536), recv, bye,
	}},
	{Name: "1 MiB up and down", Target: "/echo", Steps: []play.Step{binary(1 << 20), recv, bye}},
	{Name: "1 MiB down", Target: "/echo", Steps: []play.Step{text("!big 1048576"), recv, bye}},
	{Name: "pipelined", Target: "/echo", Steps: []play.Step{
		text("1"), text("2"), binary(3), text("4"), recv, recv, recv, recv, bye,
	}},
	// é and ☃ are each cut in two.
	{Name: "fragments up", Target: "/echo", Steps: []play.Step{
		{Op: "fragments", Parts: []string{"6cc3", "a967e2", "988372"}}, recv, bye,
	}, Needs: []string{play.Fragments}},
	{Name: "fragments up, one empty", Target: "/echo", Steps: []play.Step{
		{Op: "fragments", Parts: []string{"61", "", "62"}}, recv, bye,
	}, Needs: []string{play.Fragments}},
	{Name: "fragments down", Target: "/echo", Steps: []play.Step{
		text("!fragments"), recv, bye,
	}, ServerNeeds: []string{play.Fragments}},
	{Name: "ping up", Target: "/echo", Steps: []play.Step{
		{Op: "ping", Text: "are you there?"}, recv, text("after"), recv, bye,
	}, Needs: []string{play.Ping}},
	{Name: "ping down", Target: "/echo", Steps: []play.Step{
		text("!ping payload-42"), recv, text("after"), recv, bye,
	}, ServerNeeds: []string{play.Ping}},
	{Name: "greeting", Target: "/greet", Steps: []play.Step{recv, text("hi"), recv, bye}},

	{Name: "subprotocol", Target: "/echo", Protocols: []string{"none.such", "chat.v1", "chat.v2"}, Steps: []play.Step{
		text("!request"), recv, bye,
	}},
	{Name: "no subprotocol", Target: "/echo", Steps: []play.Step{text("!request"), recv, bye}},
	{Name: "headers", Target: "/echo",
		Headers: map[string]string{
			"Cookie":        "session=a1b2; theme=\"dark\"; odd=%7e",
			"Authorization": "Bearer ab.cd-ef",
			"X-E2e":         "a, b;c=\"d\"",
		},
		Steps: []play.Step{text("!request"), recv, bye},
		Needs: []string{play.Headers},
	},
	{Name: "headers of the 101", Target: "/echo", Show: []string{"set-cookie", "x-server"},
		Steps: []play.Step{bye}, Needs: []string{play.Response}},
	{Name: "odd target", Target: "/echo/a%2Fb/%E2%98%83;v=1/x+y?a=1;b=2&c=%zz&d=a+b%20c&&=&e=%25", Steps: []play.Step{
		text("!request"), recv, bye,
	}},
	{Name: "deflate", Target: "/echo", Deflate: true, Show: []string{"sec-websocket-extensions"}, Steps: []play.Step{
		text("!extensions"), recv,
		text("compress me, compress me, compress me"), recv,
		text("compress me, compress me, compress me"), recv,
		text("!big 100000"), recv, bye,
	}, Needs: []string{play.Deflate}},

	{Name: "client closes 1000", Target: "/echo", Steps: []play.Step{{Op: "close", Code: 1000, Reason: "good bye"}}},
	{Name: "client closes 1001", Target: "/echo", Steps: []play.Step{{Op: "close", Code: 1001, Reason: "going"}}, Needs: []string{play.Codes}},
	{Name: "client closes 3000", Target: "/echo", Steps: []play.Step{{Op: "close", Code: 3000, Reason: "naïve"}}},
	{Name: "client closes 4999", Target: "/echo", Steps: []play.Step{{Op: "close", Code: 4999, Reason: "☃"}}},
	{Name: "client closes without code", Target: "/echo", Steps: []play.Step{{Op: "close"}}, Needs: []string{play.NoCode}},
	{Name: "server closes 1000", Target: "/echo", Steps: []play.Step{text("!close 1000 good bye"), recv}},
	{Name: "server closes 1001", Target: "/echo", Steps: []play.Step{text("!close 1001 going"), recv}, ServerNeeds: []string{play.Codes}},
	{Name: "server closes 1011", Target: "/echo", Steps: []play.Step{text("!close 1011 oops"), recv}, ServerNeeds: []string{play.Codes}},
	{Name: "server closes 3000", Target: "/echo", Steps: []play.Step{text("!close 3000 naïve"), recv}},
	{Name: "server closes 4999", Target: "/echo", Steps: []play.Step{text("!close 4999 ☃"), recv}},
	{Name: "server closes without code", Target: "/echo", Steps: []play.Step{text("!close"), recv}, ServerNeeds: []string{play.NoCode}},
	{Name: "answers before the server's close", Target: "/echo", Steps: []play.Step{
		text("one"), text("two"), text("!close 4000 enough"), recv, recv, recv,
	}},

	refusal("401"), refusal("403"), refusal("503"),

	{Name: aborts + "server", Target: "/echo", Steps: []play.Step{text("!abort"), recv}, ServerNeeds: []string{play.Abort}},
	{Name: aborts + "client", Target: "/echo", Steps: []play.Step{text("hi"), recv, {Op: "abort"}}, Needs: []string{play.Abort}},
}

// aborts begins the names of the cases in which one end is reset.
const aborts = "abrupt end of the "

func refusal(status string) play.Case {
	return play.Case{
		Name:   "refusal " + status,
		Target: "/refuse/" + status,
		Show:   []string{"content-type", "retry-after", "www-authenticate", "x-refused"},
		Body:   true,
		Needs:  []string{play.Refusal},
	}
}
