package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stentproxy/stent/proxy/e2e/wire"
)

// crowd is how many sessions are open at once.
const crowd = 1000

// TestThousand opens a thousand sessions at once to servers of different
// kinds, has all of them speak while all are open, closes them, and looks at
// what stent is left with.
func TestThousand(t *testing.T) {
	gate(t)
	for _, name := range []string{"go-gorilla", "node-ws", "py-websockets"} {
		t.Run(name, func(t *testing.T) {
			s := serverKindNamed(t, name).start(t)
			for _, w := range ways() {
				t.Run(string(w), func(t *testing.T) {
					if !w.stent() {
						gather(t, w.front(t, s.address, ""))
						return
					}
					p := startStent(t, w.config(s.address, ""))
					gather(t, p.address) // warm: pools, caches, partitions
					before := p.descriptors(t)
					gather(t, p.address)
					p.settled(t, before)
				})
			}
		})
	}
}

// gather opens the crowd, greets, and closes it.
func gather(t *testing.T, address string) {
	t.Helper()
	var opened, all sync.WaitGroup
	opened.Add(crowd)
	errs := make(chan error, crowd)
	everyone := make(chan struct{})
	for i := range crowd {
		all.Go(func() {
			conn, err := wire.Dial(address, wire.Hello(address, "/echo"))
			opened.Done()
			<-everyone
			if err == nil {
				err = greet(conn, fmt.Sprintf("I am number %d of %d", i, crowd))
			}
			if err != nil {
				errs <- err
			}
		})
	}
	opened.Wait()
	close(everyone)
	all.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if failed++; failed <= 3 {
			t.Error(err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d sessions failed", failed, crowd)
	}
}

func greet(conn *wire.Conn, words string) error {
	defer conn.Close()
	// It has waited for the others.
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if err := conn.Send(text1(words)); err != nil {
		return err
	}
	if f, err := conn.Next(); err != nil || string(f.Payload) != words {
		return fmt.Errorf("the answer to %q is %v, %w", words, f, err)
	}
	if err := conn.Send(goodBy); err != nil {
		return err
	}
	if row := conn.Rest(); !likes([]string{"close 1000", "end"}, row) {
		return fmt.Errorf("the end is %q", row)
	}
	return nil
}

// descriptors returns how many files stent has open.
func (s *stent) descriptors(t testing.TB) int {
	t.Helper()
	s.until(t, "no session is left", func() bool { return s.sessions(t) == 0 })
	http.DefaultClient.CloseIdleConnections()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.child.cmd.Process.Pid))
	if err != nil {
		t.Skipf("descriptors can't be counted here: %v", err)
	}
	return len(entries)
}

// settled fails unless stent comes back to no session and to no more
// descriptors than before.
func (s *stent) settled(t testing.TB, before int) {
	t.Helper()
	s.until(t, fmt.Sprintf("at most %d descriptors are open", before), func() bool { return s.descriptors(t) <= before })
}

// sessions returns how many sessions stent has, as its admin API says.
func (s *stent) sessions(t testing.TB) int {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/api/sessions")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Sessions []json.RawMessage `json:"sessions"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatalf("list of sessions: %v", err)
	}
	return len(list.Sessions)
}

func (s *stent) until(t testing.TB, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for !true() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}
