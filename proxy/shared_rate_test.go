package proxy

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stentproxy/stent/proxy/plug"
	"github.com/stentproxy/stent/proxy/relay"
)

// sharedWindow is how long the clients of TestSharedRate send: a second says
// whether the rate is shared, ten how exact it is.
var sharedWindow = flag.Duration("shared-window", time.Second, "how long the clients of one id send")

// counter is a backend that counts what it reads.
type counter struct {
	*httptest.Server
	messages, bytes atomic.Int64
}

func newCounter(t *testing.T) *counter {
	c := new(counter)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(-1)
		for {
			_, p, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			c.messages.Add(1)
			c.bytes.Add(int64(len(p)))
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// What the sessions of one id send together stays within the rate, in both
// modes and on both engines; another id's is not slowed by it.
func TestSharedRate(t *testing.T) {
	const sessions, size = 50, 1000
	for _, engine := range []string{"pump", "loop"} {
		for _, m := range []mode{inRelay, inMessage} {
			for _, limit := range []struct {
				name, keys      string
				messages, bytes float64
			}{
				{"messages", "messages_per_second: 400", 400, 0},
				{"bytes", "bytes_per_second: 400000", 0, 400000},
			} {
				t.Run(engine+"/"+m.name+"/"+limit.name, func(t *testing.T) {
					t.Setenv(engineEnv, engine)
					backend := newCounter(t)
					s := m.stage(t, "pipe_through: [shared]", fmt.Sprintf(
						"pipelines: {shared: [{basic_auth: {users: {alice: a, bob: b}, id: \"user:{user}\"}}, {limit: {%s, burst: 500ms, by: id}}]}\n"+
							"upstreams: {app: {targets: [%q]}}", limit.keys, strings.Replace(backend.URL, "http", "ws", 1)), testHandlers)
					ctx, stop := context.WithCancel(t.Context())
					defer stop()
					dial := func(user string) *websocket.Conn {
						r, _ := http.NewRequest("GET", "/", nil)
						r.SetBasicAuth(user, user[:1])
						c, _, err := websocket.Dial(ctx, "ws://"+s.proxy.Addrs()[0].String()+"/", &websocket.DialOptions{HTTPHeader: r.Header})
						if err != nil {
							t.Fatal(err)
						}
						return c
					}
					var clients []*websocket.Conn
					for range sessions {
						clients = append(clients, dial("alice"))
					}
					for _, session := range s.proxy.Sessions() {
						until(t, "engine "+engine, func() bool { return session.link.Engine() == engine })
					}
					message := make([]byte, size)
					// Three times what may pass: more would only keep the machine busy.
					each := int(3 * max(limit.messages, limit.bytes/size) * (sharedWindow.Seconds() + 0.5) / sessions)
					var senders sync.WaitGroup
					start := time.Now()
					for _, c := range clients {
						senders.Go(func() {
							defer c.CloseNow()
							for range each {
								if c.Write(ctx, websocket.MessageBinary, message) != nil {
									return
								}
							}
							<-ctx.Done()
						})
					}
					what, count, rate := "messages", &backend.messages, limit.messages
					if limit.bytes > 0 {
						what, count, rate = "bytes", &backend.bytes, limit.bytes
					}
					time.Sleep(*sharedWindow)
					got, took := float64(count.Load()), time.Since(start).Seconds()
					want := rate * (took + 0.5)
					t.Logf("%.0f %s in %.2f s, want %.0f: %+.2f%%", got, what, took, want, 100*(got-want)/want)
					if got > want*1.05 {
						t.Errorf("%.0f %s in %.2f s, want at most %.0f", got, what, took, want)
					}
					// A busy machine is slower than the rate, but nothing stands still.
					until(t, what, func() bool { return float64(count.Load()) >= want*9/10 })
					stop()
					senders.Wait()
				})
			}
		}
	}
}

// The allowance of an id outlives its last session until it is whole again,
// and then takes no memory.
func TestAllowancesRest(t *testing.T) {
	backend := newCounter(t)
	s := newStage(t, "pipe_through: [shared]\nlimits: {on_limit: close}", fmt.Sprintf(
		"pipelines: {shared: [{limit: {messages_per_second: 10, burst: 500ms, by: \"header:X-User\"}}]}\nupstreams: {app: {targets: [%q]}}",
		strings.Replace(backend.URL, "http", "ws", 1)), nil)
	say := func(n int) (code websocket.StatusCode) {
		c, _, err := websocket.Dial(t.Context(), "ws://"+s.proxy.Addrs()[0].String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		for range n {
			if err := c.Write(t.Context(), websocket.MessageText, []byte("a")); err != nil {
				break
			}
		}
		if n < 6 {
			c.Close(websocket.StatusNormalClosure, "")
			return websocket.StatusNormalClosure
		}
		_, _, err = c.Read(t.Context())
		return websocket.CloseStatus(err)
	}
	if code := say(20); code != websocket.StatusPolicyViolation {
		t.Errorf("above the rate the session ended with %d", code)
	}
	s.over()
	if code := say(6); code != websocket.StatusPolicyViolation {
		t.Errorf("a new session had a new burst: it ended with %d", code)
	}
	s.over()
	shares := s.proxy.shares
	for deadline := time.Now().Add(patience); ; {
		shares.mu.Lock()
		_, has, rests := shares.resting.GetOldest()
		inUse := len(shares.inUse)
		shares.mu.Unlock()
		if inUse != 0 || !rests {
			t.Fatalf("%d allowances in use, one rests: %v", inUse, rests)
		}
		if has.shared.Full() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the allowance does not become whole")
		}
	}
	say(0)
	s.over()
	if n := shares.resting.Len(); n != 0 {
		t.Errorf("%d allowances are left", n)
	}
}

// A reload's rate holds for the sessions that are there, too.
func TestAllowanceFollowsReload(t *testing.T) {
	a := newAllowances()
	join := func(messages float64) (*plug.Info, *relay.Shared) {
		info := &plug.Info{Allowances: []plug.Allowance{{Messages: messages, Burst: time.Second}}}
		return info, a.join(info)[0]
	}
	first, one := join(10)
	second, other := join(20)
	if one != other || a.inUse[plug.AllowanceKey{}].rate.Messages != 20 {
		t.Errorf("two sessions of one key have %v", a.inUse)
	}
	first.End()
	first.End()
	if len(a.inUse) != 1 {
		t.Error("the allowance is gone while a session has it")
	}
	second.End()
	if len(a.inUse) != 0 {
		t.Error("the allowance is in use by nobody")
	}
}
