package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

var chatBinary = sync.OnceValues(func() (string, error) {
	dir, err := scratchDir()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "chat")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/chat")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build chat: %w\n%s", err, out)
	}
	return binary, nil
})

// chatPlay is what testdata/node/phoenix-chat.mjs prints.
type chatPlay struct {
	Script []any
	Kept   *struct {
		Acknowledged, Backends int
		Lost, Twice            []string
	}
	People []struct {
		Opened, Closed, Failed, Present int
		Joined                          []string
	}
}

// playChat plays two people with phoenix.js against the chat at base.
func playChat(t *testing.T, base, version, transport string, kills int) (p chatPlay) {
	t.Helper()
	cmd := node(t, "phoenix-chat.mjs", base, version, fmt.Sprint(kills), transport)
	var said tail
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("phoenix.js %s: %v\n%s", version, err, said.String())
	}
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatalf("phoenix.js %s: %v in %s", version, err, out)
	}
	for i, one := range p.People {
		if one.Opened != 1 || one.Closed != 0 || one.Failed != 0 {
			t.Errorf("phoenix.js %s, person %d: %d connections opened, %d closed, %d errors; want one that stays", version, i, one.Opened, one.Closed, one.Failed)
		}
		if got := fmt.Sprint(one.Joined); got != "[joined joined]" || one.Present != 2 {
			t.Errorf("phoenix.js %s, person %d: channels are %s, %d present", version, i, got, one.Present)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", said.String())
	}
	return p
}

// TestChat plays the chat with real Phoenix clients: against its backend, and
// through stent with the same result, while that is killed at random: ten
// times over each transport, or STENT_KILLS.
func TestChat(t *testing.T) {
	gate(t)
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("STENT_KILLS")); err == nil {
		kills = n
	}
	binary, err := chatBinary()
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan string, 1)
	cmd := exec.Command(binary, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", t.TempDir(), "--pause", "50ms", "--log", "error")
	pattern := regexp.MustCompile(`Open\s+(http://\S+)`)
	stent := start(t, cmd, func(line []byte) {
		if m := pattern.FindSubmatch(line); m != nil {
			opened <- string(m[1])
		}
	})
	direct := freeAddresses(t, 1)[0]
	alone := exec.Command(binary, "backend", "--listen", direct, "--db", filepath.Join(t.TempDir(), "chat.db"))
	alone.Env = append(os.Environ(), "CHAT_SECRET=0123456789abcdef0123456789abcdef")
	start(t, alone, func([]byte) {})
	var base string
	select {
	case base = <-opened:
	case <-time.After(time.Minute):
		t.Fatal("the chat is never ready")
	}
	for _, version := range []string{"1.7", "1.8"} {
		t.Run("phoenix.js "+version, func(t *testing.T) {
			want := playChat(t, "http://"+direct, version, "websocket", 0) // which has no long poll
			for _, transport := range []string{"websocket", "longpoll"} {
				got := playChat(t, base, version, transport, 0)
				if fmt.Sprint(got.Script) != fmt.Sprint(want.Script) {
					t.Errorf("%s through stent: %v\ndirect: %v", transport, got.Script, want.Script)
				}
				killed := playChat(t, base, version, transport, kills)
				k := killed.Kept
				if k == nil || len(k.Lost) > 0 || len(k.Twice) > 0 || k.Acknowledged < kills || k.Backends != kills+1 {
					t.Errorf("%s, %d kills: %+v", transport, kills, k)
				} else {
					t.Logf("%s, %d kills: %d messages acknowledged, %d backends seen", transport, kills, k.Acknowledged, k.Backends)
				}
			}
		})
	}
	if err := stent.end(15 * time.Second); err != nil {
		t.Errorf("end the chat: %v", err)
	}
}
