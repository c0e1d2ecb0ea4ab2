package proxy

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"
)

// until waits for a condition that other goroutines bring about.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// hoard opens sessions that hold different amounts, by what their clients
// have sent of a message; handlers are what makes stent gather it.
func hoard(t *testing.T, s *stage, sizes ...int) (clients []*wire, sessions []*Session) {
	t.Helper()
	seen := make(map[*Session]bool)
	for _, size := range sizes {
		s.open()
		for _, session := range s.proxy.Sessions() {
			if !seen[session] {
				seen[session] = true
				sessions = append(sessions, session)
			}
		}
		message := binary(2 * size)
		s.client.send(s.client.part(message, size))
		session := sessions[len(sessions)-1]
		until(t, "gathering", func() bool { return session.link.Weight() >= int64(size)-100 })
		clients = append(clients, s.client)
	}
	return clients, sessions
}

// The largest go first, and no more than needed.
func TestShedLargestFirst(t *testing.T) {
	for _, engine := range []string{"pump", "loop"} {
		t.Run(engine, func(t *testing.T) {
			t.Setenv(engineEnv, engine)
			s := inMessage.stage(t, "", "", testHandlers)
			clients, sessions := hoard(t, s, 20000, 90000, 50000, 0)
			(&memory{p: s.proxy}).shed(100000)
			for i, want := range []bool{false, true, true, false} {
				if got := sessions[i].link.Ended() != nil; got != want {
					t.Errorf("session %d: shed %v, want %v", i, got, want)
				}
			}
			// What is on its way out counts as gone.
			(&memory{p: s.proxy}).shed(100)
			if sessions[0].link.Ended() != nil && sessions[1].link.Weight() > 0 {
				t.Error("another session was shed while the largest were leaving")
			}
			clients[1].expect("close 1013 proxy is short of memory")
			clients[2].expect("close 1013 proxy is short of memory")
		})
	}
}

// Above limits.memory new sessions get 503, and what is held is let go of;
// below it all is as before.
func TestMemoryLimit(t *testing.T) {
	s := inMessage.stage(t, "", "", testHandlers)
	clients, _ := hoard(t, s, 20000, 0)
	reload := func(memory string) {
		t.Helper()
		yaml := s.yaml(lines(inMessage.route), "limits: {memory: "+memory+"}")
		if err := s.proxy.Reload(s.parse(yaml)); err != nil {
			t.Fatal(err)
		}
	}
	reload("1")
	clients[0].expect("close 1013 proxy is short of memory")
	refused := s.dial()
	refused.say(handshake("/"))
	resp := refused.status()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new session got %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	clients[1].send(text("still here"))
	s.upstream.expect("text still here") // the second session's, which holds nothing
	reload("1TiB")
	until(t, "recovery", func() bool { return !s.proxy.admission.short.Load() })
	s.open()
	if n := s.log.FilterMessage("short of memory: new sessions are refused").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// Garbage is no reason to refuse anybody.
func TestMemoryIsMeasuredAfterCollection(t *testing.T) {
	p := &Proxy{admission: newAdmission(), registry: newRegistry(), log: zap.NewNop()}
	used, collected := uint64(100), 0
	m := &memory{p: p, used: func() uint64 { return used }, collect: func() { collected++; used = 40 }}
	if m.look(50) || collected != 1 || p.admission.short.Load() {
		t.Errorf("short after %d collections", collected)
	}
	if m.look(50) || collected != 1 {
		t.Errorf("%d collections while there was enough", collected)
	}
	m.collect = func() { collected++ }
	used = 60
	if !m.look(50) || !p.admission.short.Load() {
		t.Error("not short at 60 of 50")
	}
	used = 50
	if m.look(50) || p.admission.short.Load() {
		t.Error("short at 50 of 50")
	}
	used = 60
	m.look(50)
	if m.look(0) || p.admission.short.Load() {
		t.Error("short without a limit")
	}
}

func TestUsedMemory(t *testing.T) {
	before := usedMemory()
	held := make([]byte, 32<<20)
	if after := usedMemory(); after < before+16<<20 || after > before+256<<20 {
		t.Errorf("with %d bytes more, %d became %d", len(held), before, after)
	}
	held[0] = 1
}

// What a session holds for a peer has its weight: held for an upstream that
// is lost, pushed to a client that reads nothing, not taken by an upstream.
func TestWeight(t *testing.T) {
	for _, engine := range []string{"pump", "loop"} {
		t.Run(engine, func(t *testing.T) {
			t.Setenv(engineEnv, engine)
			for name, play := range map[string]func(s *stage) int64{
				"held": func(s *stage) int64 {
					s.refuse()
					s.upstream.Close()
					until(t, "held", func() bool { return s.session().State() == HeldState })
					s.client.send(binary(20000))
					return 20000
				},
				"pushed": func(s *stage) int64 {
					for range 200 {
						s.session().Push(Client, Binary, make([]byte, 100000))
					}
					return 50000
				},
			} {
				if name == "pushed" && engine == "pump" {
					continue // whoever pushes waits for the client itself
				}
				t.Run(name, func(t *testing.T) {
					s := inRelay.stage(t, kept+"\n"+hasty, "", nil)
					s.open()
					session := s.session()
					if n := session.link.Weight(); n != 0 {
						t.Errorf("an idle session weighs %d", n)
					}
					want := play(s)
					until(t, name, func() bool { return session.link.Weight() >= want })
				})
			}
		})
	}
}
