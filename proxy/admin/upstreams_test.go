package admin

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy"
	"github.com/stentproxy/stent/proxy/upstream"
)

func TestUpstreams(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	c, _ := r.dial("/")
	got := r.request("GET", "/api/upstreams", nil)
	want := fmt.Sprintf(`{"upstreams":[{"name":"app","balance":"least_sessions","targets":[{"name":"blue","url":%q,"state":"up","sessions":1,"dials":1,"failures":0}]}]}`, b.url) + "\n"
	if string(got.body) != want {
		t.Errorf("got %s\nwant %s", got.body, want)
	}
	state := func() string {
		var got struct {
			Upstreams []struct {
				Targets []struct {
					State string `json:"state"`
				} `json:"targets"`
			} `json:"upstreams"`
		}
		r.get("/api/upstreams", &got)
		return got.Upstreams[0].Targets[0].State
	}

	for range 2 { // twice is as once
		if got := r.request("PUT", "/api/upstreams/app/blue/drain", nil); got.status != http.StatusAccepted {
			t.Errorf("drain: got %d %s", got.status, got.body)
		}
	}
	if got := state(); got != "draining" {
		t.Errorf("state %q", got)
	}
	if _, resp, err := websocket.Dial(t.Context(), r.front+"/", nil); err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("dial while draining: %v", err)
	}
	echoed(t, c, "no continuity: left alone")

	if got := r.request("DELETE", "/api/upstreams/app/blue/drain", nil); got.status != http.StatusNoContent {
		t.Errorf("undrain: got %d %s", got.status, got.body)
	}
	if got := state(); got != "up" {
		t.Errorf("state %q", got)
	}
	r.dial("/")

	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"PUT", "/api/upstreams/app/green/drain", 404},
		{"PUT", "/api/upstreams/none/blue/drain?close=true", 404},
		{"DELETE", "/api/upstreams/app/green/drain", 404},
		{"PUT", "/api/upstreams/app/blue/drain?close=perhaps", 400},
		{"POST", "/api/upstreams/app/blue/drain", 405},
		{"GET", "/api/upstreams/app", 404},
	} {
		r.wantProblem(r.request(tt.method, tt.path, nil), tt.want)
	}
	if got := state(); got != "up" {
		t.Errorf("state %q after refused requests", got)
	}
}

// TestDrainAndClose ends what nothing can move, and nothing else.
func TestDrainAndClose(t *testing.T) {
	b := newBackend(t)
	r := run(t, fmt.Sprintf(`
routes:
  - {path: /bound, upstream: app}
  - {path: /free, upstream: app, continuity: {}}
upstreams:
  app: {targets: [{url: %q, name: blue}, {url: %q, name: green}]}
`, b.url, newBackend(t).url), Options{})
	sessions := make(map[string][]*websocket.Conn) // by target
	for range 2 {
		c, s := r.dial("/bound")
		sessions[s.Target()] = append(sessions[s.Target()], c)
	}
	free, s := r.dial("/free")
	sessions[s.Target()] = append(sessions[s.Target()], free)
	if len(sessions["blue"]) == 0 || len(sessions["green"]) == 0 {
		t.Fatalf("sessions by target: %v", sessions)
	}
	if got := r.request("PUT", "/api/upstreams/app/blue/drain?close=true", nil); got.status != http.StatusAccepted {
		t.Errorf("got %d %s", got.status, got.body)
	}
	for _, c := range sessions["blue"] {
		if c == free {
			continue
		}
		if _, _, err := read(t, c); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("client got %v, want 1012", err)
		}
	}
	r.eventually("the other one has moved", func() bool { return s.Target() == "green" && s.State() == proxy.Open })
	echoed(t, free, "still here")
	for _, c := range sessions["green"] {
		echoed(t, c, "here too")
	}
}

// TestTargetName holds a target's name to one path segment.
func TestTargetName(t *testing.T) {
	b := newBackend(t)
	r := run(t, fmt.Sprintf("routes: [{path: /*, upstream: app}]\nupstreams: {app: {targets: [%q]}}\n", b.url), Options{})
	name := r.proxy.Pools().Snapshot()[0].Targets[0].Name // host:port
	if got := r.request("PUT", "/api/upstreams/app/"+name+"/drain", nil); got.status != http.StatusAccepted {
		t.Errorf("drain %s: got %d %s", name, got.status, got.body)
	}
	if state := r.proxy.Pools().Snapshot()[0].Targets[0].State; state != upstream.Draining {
		t.Errorf("state %v", state)
	}
}
