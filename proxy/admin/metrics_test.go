package admin

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// families returns what /metrics answers.
func families(r *running) map[string]*dto.MetricFamily {
	r.t.Helper()
	got := r.request("GET", "/metrics", nil)
	if got.status != http.StatusOK {
		r.t.Fatalf("got %d %s", got.status, got.body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(got.body))
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// scrape returns the values of counters and gauges, and the counts of
// histograms, by name{label="value"} with the labels in order.
func scrape(r *running) map[string]float64 {
	r.t.Helper()
	values := make(map[string]float64)
	for name, family := range families(r) {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if len(labels) > 0 {
				slices.Sort(labels)
				key += "{" + strings.Join(labels, ",") + "}"
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// contract lists the metrics of the contract, as far as their subject
// exists, with their labels.
var contract = map[string]string{
	"sessions":                 "route,state",
	"sessions_opened_total":    "route",
	"sessions_closed_total":    "code,initiator,route",
	"session_duration_seconds": "",
	"handshakes_refused_total": "route,status",
	"messages_total":           "from,route,type",
	"message_bytes_total":      "from,route",
	"message_size_bytes":       "",
	"upstream_dials_total":     "result,upstream",
	"upstream_dial_seconds":    "",
	"upstream_target_up":       "target,upstream",
	"upstream_target_sessions": "target,upstream",
	"restarts_total":           "reason,route",
	"held_sessions":            "route",
	"held_seconds":             "",
	// The contract asks for the loops' stalls and leaves their names to us.
	"loop_stalls_total":          "",
	"loop_stalled_seconds_total": "",
	"limited_total":              "limit,route",
	// As it does Phoenix's.
	"channel_joins_total":     "result,route,topic",
	"channel_errors_total":    "from,route,topic",
	"channel_events_total":    "event,from,route",
	"handler_results_total":   "handler,result,route",
	"handler_seconds":         "",
	"supervisor_events_total": "event",
	"config_reloads_total":    "result",
	"config_snapshots":        "",
	"build_info":              "goversion,version", // the contract leaves them open
}

// TestMetricsContract makes every metric appear and checks its name and
// labels.
func TestMetricsContract(t *testing.T) {
	b := newBackend(t)
	r := run(t, fmt.Sprintf(`
routes:
  - {path: /held, upstream: app, continuity: {backoff: {min: 1ms}}}
  - {path: /lost, upstream: gone}
  - {path: /*, upstream: app, handlers: [pass]}
upstreams:
  app: {targets: [{url: %q, name: blue}]}
  gone: {targets: ["ws://127.0.0.1:1"]}
`, b.url), Options{})
	c, s := r.dial("/")
	echoed(t, c, "hello")
	s.Close(0, "")
	_, _, _ = read(t, c) // answers the close frame
	r.eventually("no session is left", func() bool { return len(r.proxy.Sessions()) == 0 })
	if _, _, err := websocket.Dial(t.Context(), r.front+"/lost", nil); err == nil {
		t.Fatal("a session without upstream")
	}
	phoenix := run(t, oneRoute(b.url, ", protocol: phoenix"), Options{})
	channels, _ := phoenix.dial("/socket?vsn=2.0.0")
	for _, message := range []string{
		`["1","1","room:1","phx_join",{}]`, `["1","1","room:1","phx_reply",{"status":"ok","response":{}}]`,
		`["1","2","room:1","new_msg",{}]`, `["1","1","room:1","phx_error",{}]`,
	} {
		echoed(t, channels, message) // an echo is an answer, too
	}
	// The backend's "going away" is a reason to come back.
	back := newGoingAway(t)
	held := run(t, oneRoute(back, ", continuity: {backoff: {min: 1ms}}"), Options{})
	held.dial("/")
	held.eventually("the session is on its second upstream", func() bool { return held.proxy.Sessions()[0].Attempt() >= 2 })

	got := make(map[string]string)
	for _, r := range []*running{r, held, phoenix} {
		for name, family := range families(r) {
			name, ours := strings.CutPrefix(name, "stent_")
			if !ours {
				continue
			}
			for _, m := range family.GetMetric() {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetName())
				}
				slices.Sort(labels)
				got[name] = strings.Join(labels, ",")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(contract)) {
		if labels, ok := got[name]; !ok || labels != contract[name] {
			t.Errorf("stent_%s: there %v, labels %q, want %q", name, ok, labels, contract[name])
		}
	}
	for name := range got {
		if _, ok := contract[name]; !ok {
			t.Errorf("stent_%s is not in the contract", name)
		}
	}

	values := scrape(r)
	for name, want := range map[string]float64{
		`stent_sessions_opened_total{route="/*"}`:                               1,
		`stent_sessions_closed_total{code="1008",initiator="stent",route="/*"}`: 1,
		`stent_session_duration_seconds`:                                        1,
		`stent_sessions{route="/*",state="open"}`:                               0,
		`stent_sessions{route="/*",state="closing"}`:                            0,
		`stent_messages_total{from="client",route="/*",type="text"}`:            1,
		`stent_messages_total{from="upstream",route="/*",type="text"}`:          1,
		`stent_message_bytes_total{from="client",route="/*"}`:                   5,
		`stent_message_size_bytes`:                                              2,
		`stent_handler_results_total{handler="pass",result="ok",route="/*"}`:    2,
		`stent_handler_seconds`:                                                 2,
		`stent_handshakes_refused_total{route="/lost",status="502"}`:            1,
		`stent_upstream_target_up{target="blue",upstream="app"}`:                1,
		`stent_upstream_target_sessions{target="blue",upstream="app"}`:          0,
		`stent_limited_total{limit="rate",route="/*"}`:                          0,
		`stent_config_reloads_total{result="ok"}`:                               0,
		`stent_config_snapshots`:                                                1,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "stent_upstream_dial_seconds"} {
		if values[name] <= 0 {
			t.Errorf("%s is %v", name, values[name])
		}
	}
}

// TestMetricsLint asks Prometheus's own linter.
func TestMetricsLint(t *testing.T) {
	b := newBackend(t)
	r := run(t, oneRoute(b.url, ", handlers: [pass]"), Options{})
	c, s := r.dial("/")
	echoed(t, c, "hello")
	s.Close(0, "")
	_, _, _ = read(t, c)
	problems, err := promlint.New(bytes.NewReader(r.request("GET", "/metrics", nil).body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "stent_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestScrapeUnderTraffic scrapes while sessions open, talk and close: what
// is summed up from them may never go down.
func TestScrapeUnderTraffic(t *testing.T) {
	b := newBackend(t)
	go func() { // nobody else reads what the backend tells
		for range b.got {
		}
	}()
	t.Cleanup(func() { close(b.got) })
	r := run(t, oneRoute(b.url, ""), Options{})
	const clients, rounds, messages = 4, 5, 20
	var talking sync.WaitGroup
	for range clients {
		talking.Go(func() {
			for range rounds {
				if err := talk(t, r.front, messages); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		talking.Wait()
		close(done)
	}()
	const name = `stent_messages_total{from="client",route="/*",type="text"}`
	last := 0.0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got := scrape(r)[name]
		if got < last {
			t.Fatalf("%s went from %v to %v", name, last, got)
		}
		last = got
		var listed page
		r.get("/api/sessions", &listed)
		for _, s := range listed.Sessions {
			r.ask("GET", "/api/sessions/"+s.Session, nil)
		}
	}
	if last != clients*rounds*messages {
		t.Errorf("%s is %v, want %d", name, last, clients*rounds*messages)
	}
}

// talk is one session of so many messages.
func talk(t *testing.T, url string, messages int) error {
	c, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	for i := range messages {
		if err := c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, "message %d", i)); err != nil {
			return err
		}
		if _, _, err := c.Read(t.Context()); err != nil {
			return err
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil && err != io.EOF {
		return err
	}
	return nil
}
