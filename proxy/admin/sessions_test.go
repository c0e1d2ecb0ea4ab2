package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy"
)

func TestShowSession(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	c, s := r.dial("/room", "chat.v2", "chat.v1")
	echoed(t, c, "hello")
	echoed(t, c, "you")

	var got map[string]any
	r.get("/api/sessions/"+s.Key(), &got)
	opened, err := time.Parse(time.RFC3339, fmt.Sprint(got["opened"]))
	if err != nil || time.Since(opened) > time.Minute || time.Since(opened) < 0 {
		t.Errorf("opened %v: %v", got["opened"], err)
	}
	delete(got, "opened")
	want := map[string]any{
		"session": s.Key(), "id": "", "route": "/*", "upstream": "app", "target": "blue",
		"state": "open", "mode": "relay", "engine": s.Info().Engine, "remote": "127.0.0.1",
		"attempt": 1.0, "restarts": 0.0, "held_seconds": 0.0, "subprotocol": "chat.v2",
		"client":        map[string]any{"messages": 2.0, "bytes": 8.0, "pings": 0.0},
		"upstream_side": map[string]any{"messages": 2.0, "bytes": 8.0, "pings": 0.0},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	r.wantProblem(r.request("GET", "/api/sessions/NOBODY", nil), http.StatusNotFound)
}

func TestListSessions(t *testing.T) {
	b := newBackend(t)
	r := run(t, fmt.Sprintf(`
routes:
  - {path: /one, upstream: app}
  - {path: /two, upstream: other, handlers: [named]}
upstreams:
  app: {targets: [{url: %q, name: blue}]}
  other: {targets: [{url: %q, name: green}]}
`, b.url, b.url), Options{})
	for range 3 {
		r.dial("/one")
	}
	r.dial("/two")
	for _, tt := range []struct {
		query string
		want  int
	}{
		{"", 4},
		{"route=/one", 3},
		{"route=/two", 1},
		{"route=/on", 0},
		{"upstream=other", 1},
		{"target=blue", 3},
		{"target=blue&upstream=other", 0},
		{"id=nobody", 0},
		{"state=open", 4},
		{"state=held", 0},
		{"state=open&route=%2Ftwo", 1},
		{"limit=2", 2},
		{"limit=100000", 4},
	} {
		t.Run(tt.query, func(t *testing.T) {
			r := *r
			r.t = t
			var got page
			r.get("/api/sessions?"+tt.query, &got)
			if len(got.Sessions) != tt.want {
				t.Errorf("got %d sessions, want %d", len(got.Sessions), tt.want)
			}
		})
	}
	for _, query := range []string{"state=asleep", "limit=0", "limit=-1", "limit=many", "limit=9999999999999999999999", "route=%zz", "a;b"} {
		t.Run(query, func(t *testing.T) {
			r := *r
			r.t = t
			r.wantProblem(r.request("GET", "/api/sessions?"+query, nil), http.StatusBadRequest)
		})
	}
	t.Run("none", func(t *testing.T) {
		got := r.request("GET", "/api/sessions?route=/none", nil)
		if want := `{"sessions":[],"next":""}` + "\n"; string(got.body) != want {
			t.Errorf("got %q, want %q", got.body, want)
		}
	})
}

// TestPages holds paging to its promise: what lives all the while is met
// exactly once, while others come and go.
func TestPages(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	stay := make(map[string]bool)
	var leave []*websocket.Conn
	for i := range 23 {
		c, s := r.dial("/")
		if i%4 == 0 {
			leave = append(leave, c)
		} else {
			stay[s.Key()] = true
		}
	}
	met := make(map[string]int)
	cursor, last := "", ""
	for pages := 0; ; pages++ {
		var got page
		r.get("/api/sessions?limit=5&cursor="+url.QueryEscape(cursor), &got)
		if len(got.Sessions) > 5 || len(got.Sessions) == 0 && got.Next != "" {
			t.Fatalf("%d sessions on a page, next %q", len(got.Sessions), got.Next)
		}
		for _, s := range got.Sessions {
			if s.Session <= last {
				t.Errorf("%s after %s", s.Session, last)
			}
			last = s.Session
			met[s.Session]++
		}
		if got.Next == "" {
			break
		}
		cursor = got.Next
		if len(leave) > 0 {
			leave[0].CloseNow()
			leave = leave[1:]
			r.dial("/")
		}
		if pages > 30 {
			t.Fatal("no end of pages")
		}
	}
	for key := range maps.Keys(stay) {
		if met[key] != 1 {
			t.Errorf("%s met %d times", key, met[key])
		}
	}
}

// TestFirstBehind compares paging with a plain sort.
func TestFirstBehind(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	var keys []string
	for range 20 {
		_, s := r.dial("/")
		keys = append(keys, s.Key())
	}
	slices.Sort(keys)
	for _, cursor := range []string{"", keys[0], keys[7], keys[19], "~"} {
		for n := 1; n <= 22; n++ {
			var want, got []string
			for _, key := range keys {
				if key > cursor && len(want) < n {
					want = append(want, key)
				}
			}
			for _, s := range firstBehind(r.proxy.Sessions(), filter{}, cursor, n) {
				got = append(got, s.Key())
			}
			if !slices.Equal(got, want) {
				t.Fatalf("first %d behind %q: got %v, want %v", n, cursor, got, want)
			}
		}
	}
}

func TestCloseSession(t *testing.T) {
	b := newBackend(t)
	for _, mode := range []struct{ name, more string }{{"relay", ""}, {"message", ", handlers: [pass]"}} {
		r := run(t, oneRoute(b.url, mode.more), Options{})
		for _, tt := range []struct {
			name, query string
			code        websocket.StatusCode
			reason      string
		}{
			{"default", "", 1008, "closed by the operator"},
			{"reason", "?reason=go+away", 1008, "go away"},
			{"code", "?code=4001&reason=%C3%BCber", 4001, "über"},
			{"normal", "?code=1000", 1000, ""},
			{"try again", "?code=1013", 1013, ""},
		} {
			t.Run(mode.name+"/"+tt.name, func(t *testing.T) {
				r := *r
				r.t = t
				c, s := r.dial("/")
				got := r.request("DELETE", "/api/sessions/"+s.Key()+tt.query, nil)
				if got.status != http.StatusNoContent || len(got.body) > 0 {
					t.Errorf("got %d %q", got.status, got.body)
				}
				_, _, err := read(t, c)
				closed, ok := errors.AsType[websocket.CloseError](err)
				if !ok || closed.Code != tt.code || closed.Reason != tt.reason {
					t.Errorf("client got %v, want %d %q", err, tt.code, tt.reason)
				}
				if code := receive(t, b.closed); code != websocket.StatusGoingAway {
					t.Errorf("upstream got %d, want 1001", code)
				}
				r.eventually("the session is forgotten", func() bool { return r.proxy.Session(s.Key()) == nil })
				r.wantProblem(r.request("DELETE", "/api/sessions/"+s.Key(), nil), http.StatusNotFound)
			})
		}
	}
}

func TestCloseCodes(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ""), Options{})
	c, s := r.dial("/")
	for _, query := range []string{
		"code=0", "code=999", "code=1004", "code=1005", "code=1006", "code=1014", "code=1015", "code=1016",
		"code=2999", "code=5000", "code=-1", "code=x", "code=1e3", "reason=%FF",
		"reason=" + strings.Repeat("x", maxReason+1),
	} {
		r.wantProblem(r.request("DELETE", "/api/sessions/"+s.Key()+"?"+query, nil), http.StatusBadRequest)
		r.wantProblem(r.request("DELETE", "/api/ids/x?"+query, nil), http.StatusBadRequest)
	}
	echoed(t, c, "still here")
}

// TestSessionInfoKeys pins the contract's members and their order.
func TestSessionInfoKeys(t *testing.T) {
	got, err := json.Marshal(proxy.SessionInfo{State: proxy.HeldState})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"session":"","id":"","route":"","upstream":"","target":"","state":"held","mode":"","engine":"","remote":"","opened":"0001-01-01T00:00:00Z","attempt":0,"restarts":0,"held_seconds":0,"subprotocol":"","client":{"messages":0,"bytes":0,"pings":0},"upstream_side":{"messages":0,"bytes":0,"pings":0}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
