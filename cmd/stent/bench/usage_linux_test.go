package bench

import (
	"os"
	"os/exec"
	"testing"
)

func TestWatch(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	w, err := watch(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if len(w) != 2 || w[0].PID != os.Getpid() || w[1].PID != child.Process.Pid {
		t.Errorf("got %v, want this process and its child", w)
	}
	if w.memory() == 0 {
		t.Error("no memory")
	}
	for before := w.cpu(); w.cpu() <= before; { // until a tick is used up
	}
}
