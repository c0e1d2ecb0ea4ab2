package proxy

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
	"go.uber.org/zap"
)

// A plug that sets a field on one route takes nothing away from those that
// look in it on another, and the backends of both may believe it.
func TestOwnedFields(t *testing.T) {
	set := func(names ...string) config.Plug {
		change := config.HeaderChange{Set: make(map[string]string)}
		for _, name := range names {
			change.Set[name] = "stent's"
		}
		return config.Plug{Name: "headers", Config: &config.HeadersPlug{Request: change}}
	}
	table, err := NewTable(&config.Config{
		Pipelines: map[string][]config.Plug{
			"site":   {{Name: "origin", Config: &config.OriginPlug{"http://own.test", "none"}}},
			"legacy": {set("origin", "X-User")},
			"idle":   {set("X-Idle")},
		},
		Routes: []config.Route{
			{Path: "/site", PipeThrough: []string{"site"}},
			{Path: "/legacy", PipeThrough: []string{"legacy"}},
		},
	}, plug.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var up http.Header
	for _, e := range table.Endpoints {
		e.Serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up = UpHeader(r, plug.From(r))
			for name := range up {
				if strings.HasPrefix(name, "X-Forwarded-") {
					delete(up, name)
				}
			}
		})
	}
	door := &Door{Table: func() *Table { return table }, Log: zap.NewNop()}
	for _, tt := range []struct {
		path   string
		header http.Header
		status int
		up     http.Header
	}{
		{"/site", http.Header{"Origin": {"http://evil.test"}}, 403, nil},
		{"/site", http.Header{"Origin": {"http://own.test"}, "X-User": {"mallory"}, "X-Idle": {"1"}}, 200, http.Header{"X-Idle": {"1"}}},
		{"/site", http.Header{"X_user": {"mallory"}}, 200, http.Header{}},
		{"/legacy", http.Header{"Origin": {"http://evil.test"}, "X-User": {"mallory"}}, 200, http.Header{"Origin": {"stent's"}, "X-User": {"stent's"}}},
	} {
		up = nil
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		r.Header = tt.header
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if w.Code != tt.status || !reflect.DeepEqual(up, tt.up) {
			t.Errorf("%s with %v: got %d and up %v, want %d and %v", tt.path, tt.header, w.Code, up, tt.status, tt.up)
		}
	}
}
