package bench

import (
	"fmt"
	"os"

	"github.com/prometheus/procfs"
)

// canWatch says whether processes can be watched on this system.
const canWatch = true

// watched is a process and its descendants, as they are when it is made: a
// proxy's workers outlive a run.
type watched []procfs.Proc

// watch looks at process pid; zero is none.
func watch(pid int) (watched, error) {
	if pid == 0 {
		return nil, nil
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := make(map[int][]procfs.Proc)
	var w watched
	for _, p := range all {
		stat, err := p.Stat()
		if err != nil {
			continue // it has just ended
		}
		children[stat.PPID] = append(children[stat.PPID], p)
		if p.PID == pid {
			w = append(w, p)
		}
	}
	if len(w) == 0 {
		return nil, fmt.Errorf("no process %d", pid)
	}
	for i := 0; i < len(w); i++ {
		w = append(w, children[w[i].PID]...)
	}
	return w, nil
}

// cpu is the seconds that it has used, in user and in system mode.
func (w watched) cpu() (seconds float64) {
	for _, p := range w {
		if stat, err := p.Stat(); err == nil {
			seconds += stat.CPUTime()
		}
	}
	return seconds
}

// memory is its share of the machine's memory, in bytes.
func (w watched) memory() (bytes uint64) {
	for _, p := range w {
		if m, err := p.ProcSMapsRollup(); err == nil {
			bytes += m.Pss
		}
	}
	return bytes
}

// ownCPU is what this process has used, in seconds.
func ownCPU() float64 {
	p, err := procfs.NewProc(os.Getpid())
	if err != nil {
		return 0
	}
	return watched{p}.cpu()
}
