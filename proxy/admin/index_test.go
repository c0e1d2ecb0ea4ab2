package admin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// The page shows upstreams and sessions with their topics; names that a
// client chose are text in it.
func TestDashboard(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ", protocol: phoenix, handlers: [named]"), Options{})
	c, _, err := websocket.Dial(t.Context(), r.front+"/websocket?vsn=2.0.0", &websocket.DialOptions{
		HTTPHeader: http.Header{"X-Test-Id": {"<script>alert(1)</script>"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	echoed(t, c, `["1","1","room:<b>","phx_join",{}]`)
	echoed(t, c, `["1","1","room:<b>","phx_reply",{"status":"ok","response":{}}]`)
	got := r.request("GET", "/", nil)
	page := string(got.body)
	for _, want := range []string{
		"<td>room:&lt;b&gt;", "<td>&lt;script&gt;alert(1)&lt;/script&gt;", "<td>app<td>blue<td>up<td class=\"n\">1",
		"1 in all.", `href="/api/sessions/` + r.proxy.Sessions()[0].Key(),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("lacks %s:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script>") {
		t.Error("a client's name is markup")
	}
	if policy := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("policy %q", policy)
	}
}
