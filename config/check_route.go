package config

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func (c *checker) route(r Route) {
	at := func(key string) string { return join(r.KeyPath, key) }
	switch {
	case r.Path == "":
		c.fail(at("path"), "required, such as /socket/*")
	default:
		if err := validRoutePath(r.Path); err != nil {
			c.fail(at("path"), "%s", err)
		}
	}
	c.methods(r, at("methods"))
	c.routeUpstream(r)
	if r.Compression == CompressionPassthrough {
		if reader := r.reader(); reader != "" {
			c.fail(at("compression"), "passthrough leaves messages compressed, but %s must read them; want off or terminate", reader)
		}
	}
	if r.Longpoll {
		c.longpoll(r)
	} else if judge := r.Judge(); judge != "" && r.HTTP && r.Protocol == ProtocolPhoenix {
		c.warn(at("http"), "the backend's own long poll would go around %s, so plain requests for /longpoll are refused: longpoll: true serves them", judge)
	}
	if r.Keepalive.Interval > 0 {
		c.positive(float64(r.Keepalive.Timeout), at("keepalive.timeout"))
	}
	c.positive(float64(r.Timeouts.Close), at("timeouts.close"))
	if r.Limits.MessagesPerSecond > 0 || r.Limits.BytesPerSecond > 0 {
		c.positive(float64(r.Limits.Burst), at("limits.burst"))
	}
	if r.Continuity != nil {
		c.continuity(r, at("continuity"))
	}
	c.topics(r, at("topics"))
	for _, h := range r.Handlers {
		c.handler(h)
	}
}

// topics checks rules over Phoenix topics.
func (c *checker) topics(r Route, path string) {
	if len(r.Topics) > 0 && r.Protocol != ProtocolPhoenix {
		c.fail(path, "topics are Phoenix's: they need protocol: phoenix")
		return
	}
	for i, topic := range r.Topics {
		at := item(path, i)
		start, _ := strings.CutSuffix(topic.Match, "*")
		name, _, _ := strings.Cut(topic.Claim, "=")
		switch {
		case topic.Match == "":
			c.fail(join(at, "match"), "required: a topic, such as room:lobby or room:*")
		case strings.Contains(start, "*"):
			c.fail(join(at, "match"), "a star may only be the end")
		case !topic.Allow && topic.Claim != "":
			c.fail(join(at, "claim"), "needs allow: true; without it nobody may join")
		case !topic.Allow && topic.JoinsPerSecond > 0:
			c.fail(join(at, "joins_per_second"), "needs allow: true; without it nobody may join")
		case topic.Claim != "" && name == "":
			c.fail(join(at, "claim"), "want the name of a claim, or name=value")
		}
		for before, earlier := range r.Topics[:i] {
			if covers(earlier.Match, topic.Match) {
				c.warn(join(at, "match"), "never gets here: topics[%d], %s, comes first", before, earlier.Match)
				break
			}
		}
	}
}

// covers reports whether all topics of a pattern match another.
func covers(pattern, other string) bool {
	start, open := strings.CutSuffix(pattern, "*")
	return pattern == other || open && strings.HasPrefix(other, start)
}

// reader names what on the route looks at messages, or is empty.
func (r Route) reader() string {
	switch {
	case len(r.Handlers) > 0:
		return "handlers"
	case r.Protocol != ProtocolRaw && r.Protocol != "":
		return "protocol " + string(r.Protocol)
	case len(r.Topics) > 0:
		return "topics"
	}
	return ""
}

// Judge names what on the route judges clients' messages and would miss those
// that go to a Phoenix backend's own long poll, by plain HTTP; it is empty
// where nothing does.
func (r Route) Judge() string {
	l := r.Limits
	switch {
	case r.Protocol == ProtocolGraphQL: // whose backends have no long poll
		return ""
	case len(r.Topics) > 0:
		return "topics"
	case len(r.Handlers) > 0:
		return "handlers"
	case r.Protocol == ProtocolPhoenix && (l.MessageSize > 0 || l.MessagesPerSecond > 0 || l.BytesPerSecond > 0):
		return "limits"
	}
	return ""
}

func (c *checker) methods(r Route, path string) {
	for i, method := range r.Methods {
		at := item(path, i)
		switch {
		case !httpguts.ValidHeaderFieldName(method):
			c.fail(at, "%q is no method", method)
		case method != strings.ToUpper(method):
			c.fail(at, "methods are written in capitals").suggestion = strings.ToUpper(method)
		}
	}
	if len(r.Methods) > 0 && !r.HTTP && !slices.Contains(r.Methods, "GET") {
		c.fail(path, "a WebSocket handshake is a GET: without it, and without http: true, nothing gets through")
	}
}

// longpoll checks a route that serves Phoenix's long poll: nothing would ever
// reach that on some.
func (c *checker) longpoll(r Route) {
	if r.Path != "" && !strings.HasSuffix(r.Path, "/*") && !strings.HasSuffix(r.Path, "/longpoll") {
		c.fail(join(r.KeyPath, "longpoll"), "long poll has a path of its own, ending in /longpoll: want a path such as /socket/*")
	}
	if r.Protocol == ProtocolGraphQL {
		c.fail(join(r.KeyPath, "longpoll"), "long poll is Phoenix's: want protocol phoenix or raw")
	}
	for _, method := range []string{"GET", "POST"} {
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			c.fail(join(r.KeyPath, "methods"), "long poll needs %s", method)
		}
	}
}

func (c *checker) routeUpstream(r Route) {
	at := join(r.KeyPath, "upstream")
	_, known := c.config.Upstreams[r.Upstream]
	switch {
	case r.Upstream == "":
		c.fail(at, "required: the name of an upstream, or none")
	case r.Upstream == UpstreamNone:
		c.noUpstream(r)
	case !known:
		c.dangling(at, "upstream", r.Upstream, slices.Collect(maps.Keys(c.config.Upstreams)))
	}
}

// noUpstream checks a route whose handlers are the application.
func (c *checker) noUpstream(r Route) {
	if len(r.Handlers) == 0 {
		c.fail(join(r.KeyPath, "upstream"), "without an upstream the route needs handlers")
	}
	if r.HTTP {
		c.fail(join(r.KeyPath, "http"), "without an upstream there is nothing to proxy plain requests to")
	}
	if r.Continuity != nil {
		c.fail(join(r.KeyPath, "continuity"), "without an upstream there is none to lose")
	}
	if r.Protocol != ProtocolRaw && r.Protocol != "" {
		c.fail(join(r.KeyPath, "protocol"), "without an upstream the handlers speak the protocol")
	}
}

// maxHeld bounds whole, buffer and replay.bytes, each of which a session may
// hold in memory.
const maxHeld Size = 256 << 20

func (c *checker) continuity(r Route, path string) {
	k := r.Continuity
	at := func(key string) string { return join(path, key) }
	c.positive(float64(k.Hold), at("hold"))
	c.positive(k.MaxSeconds, at("max_seconds"))
	c.positive(float64(k.Backoff.Min), at("backoff.min"))
	if k.Backoff.Max < k.Backoff.Min {
		c.fail(at("backoff.max"), "must not be below min, %s", k.Backoff.Min)
	}
	if k.Backoff.Jitter > 1 {
		c.fail(at("backoff.jitter"), "is a fraction, from 0 to 1")
	}
	for _, held := range []struct {
		key  string
		size Size
	}{{"whole", k.Whole}, {"buffer", k.Buffer}, {"replay.bytes", k.Replay.Bytes}} {
		if held.size > maxHeld {
			c.fail(at(held.key), "must be at most %s: each session may hold that much", maxHeld)
		}
	}
	for i, code := range k.OnClose {
		if !receivedCode(code) {
			c.fail(item(at("on_close"), i), "%d is no close code that an upstream may send", code)
		}
	}
	if k.Replay.First > 0 {
		c.positive(float64(k.Replay.Bytes), at("replay.bytes"))
		if k.Whole > 0 && k.Replay.Bytes > k.Whole && r.reader() == "" {
			c.warn(at("replay.bytes"), "messages larger than whole, %s, are passed on as they come and not repeated: the first of them ends what is", k.Whole)
		}
	}
	if k.Replay.Joins {
		if r.Protocol != ProtocolPhoenix {
			c.fail(at("replay.joins"), "joins are Phoenix's: they need protocol: phoenix")
		}
		c.positive(float64(k.Replay.Bytes), at("replay.bytes"))
	}
	if k.Replay.First > 0 && r.Protocol == ProtocolPhoenix {
		c.fail(at("replay.first"), "with protocol phoenix a new upstream gets the joins (replay.joins), not the first messages")
	}
	if r.Protocol == ProtocolRaw && k.Replay.First == 0 {
		c.warn(path, "a new upstream knows nothing of the connection, and protocol raw without replay repeats nothing to it: "+
			"this suits backends that keep no state per connection, or restore it by Stent-Session")
	}
}

// receivedCode reports whether a peer may send a close code (RFC 6455,
// section 7.4, and IANA's registry).
func receivedCode(code int) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}

// sentCode reports whether stent may send a close code: 1014 is left out,
// since several client libraries reject it.
func sentCode(code int) bool { return receivedCode(code) && code != 1014 }
