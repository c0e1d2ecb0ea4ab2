package proxy

import (
	"errors"
	"testing"

	"github.com/stentproxy/stent/config"
)

// TestReloadsCounted reloads well, with a configuration that can't be read
// and with one that can't be compiled: each is counted by its result.
func TestReloadsCounted(t *testing.T) {
	s := newStage(t, "", "", nil)
	unreadable := errors.New("unreadable")
	for _, tt := range []struct {
		name       string
		source     func() (*config.Config, error)
		err        bool
		ok, failed float64
	}{
		{"good", func() (*config.Config, error) { return s.parse("routes: []"), nil }, false, 1, 0},
		{"unreadable", func() (*config.Config, error) { return nil, unreadable }, true, 1, 1},
		{"no such handler", func() (*config.Config, error) {
			return s.parse("routes: [{path: /x, upstream: none, handlers: [unheard_of]}]"), nil
		}, true, 1, 2},
	} {
		if err := s.proxy.ReloadFrom(tt.source); (err != nil) != tt.err {
			t.Errorf("%s: got error %v", tt.name, err)
		}
		m := s.metrics()
		if ok, failed := m[`stent_config_reloads_total{result=ok}`], m[`stent_config_reloads_total{result=failed}`]; ok != tt.ok || failed != tt.failed {
			t.Errorf("%s: counted %v ok, %v failed, want %v, %v", tt.name, ok, failed, tt.ok, tt.failed)
		}
	}
}
