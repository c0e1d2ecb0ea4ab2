package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

// told is all that the log has said, with every field.
func (s *stage) told() string {
	var b strings.Builder
	for _, line := range s.log.All() {
		fmt.Fprintln(&b, line.Message, line.ContextMap(), line.Stack)
		for _, f := range line.Context {
			if f.Type == zapcore.ReflectType || f.Type == zapcore.ErrorType || f.Type == zapcore.StringerType {
				fmt.Fprintf(&b, "%+v\n", f.Interface)
			}
		}
	}
	return b.String()
}

// What clients send in confidence is in no log line, at no level, and in no
// answer: not when all is well, nor when something fails or panics.
func TestSecretsStayOut(t *testing.T) {
	const secret = "s3cret.that-is-as-long-as-tokens-are.since-it-has-a-signature-behind-it"
	carried := []string{"Authorization: Bearer " + secret, "Cookie: session=" + secret, "X-Api-Key: " + secret,
		"Proxy-Authorization: Basic " + secret, "Sec-WebSocket-Protocol: token." + secret}
	const target = "/path?token=" + secret + "&x=1"
	for _, tt := range []struct {
		name     string
		route    string
		top      string
		handlers map[string]NewHandler
		send     string
		play     func(*stage, *wire)
	}{
		{name: "a session", send: handshake(target, carried...), play: func(s *stage, c *wire) {
			up := s.accept()
			up.say(up.switching("Sec-WebSocket-Protocol: token."+secret, "Set-Cookie: a="+secret))
			c.status()
			c.send(text(secret))
			up.expect(fmt.Sprintf("text %dB", len(secret)))
			up.reset()
			c.rest()
		}},
		{name: "a handler's panic", route: "handlers: [own]\ntimeouts: {close: 200ms}", send: handshake(target, carried...),
			handlers: only(func(*Session, Message) Result { panic("at a message") }), play: func(s *stage, c *wire) {
				up := s.accept()
				up.say(up.switching("Sec-WebSocket-Protocol: token." + secret))
				c.status()
				c.send(text(secret))
				c.rest()
			}},
		{name: "a refused handshake", send: handshake(target, append(carried, "Content-Length: 1")...) + "a"},
		{name: "a path that is refused", send: handshake("/../"+target, carried...)},
		{name: "no upstream", top: "upstreams: {app: {targets: [\"ws://127.0.0.1:1\"], dial: {attempts: 1}}}", send: handshake(target, carried...)},
		{name: "an upstream that talks nonsense", send: handshake(target, carried...), top: "upstreams: {app: {targets: [\"ws://TARGET\"], dial: {attempts: 1}}}", play: func(s *stage, c *wire) {
			up := s.accept()
			up.say("nonsense\r\n\r\n")
			up.Close()
		}},
		{name: "a plain request without an upstream", route: "http: true", top: "upstreams: {app: {targets: [\"ws://127.0.0.1:1\"], dial: {attempts: 1}}}",
			send: request("GET "+target+" HTTP/1.1", carried...)},
		{name: "a plain request on a WebSocket route", send: request("GET "+target+" HTTP/1.1", carried...)},
		{name: "a malformed request", send: request("GET "+target+" HTTP/1.1", append(carried, "Bad Name: "+secret)...)},
		{name: "two hosts", send: request("GET "+target+" HTTP/1.1", append(carried, "Host: "+secret)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, tt.route, tt.top, tt.handlers)
			c := s.dial()
			c.say(tt.send)
			if tt.play != nil {
				tt.play(s, c)
			} else {
				resp := c.status()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode < http.StatusBadRequest {
					t.Errorf("answered %s", resp.Status)
				}
				if strings.Contains(string(body), secret) {
					t.Errorf("the answer says %s", body)
				}
			}
			c.Close()
			s.over()
			if strings.Contains(s.told(), secret) {
				t.Errorf("the log says\n%s", s.told())
			}
		})
	}
}
