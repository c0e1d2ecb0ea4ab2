//go:build !linux

package bench

// canWatch says whether processes can be watched on this system.
const canWatch = false

// watched is nothing here.
type watched struct{}

func watch(int) (watched, error) { return watched{}, nil }

func (watched) cpu() float64   { return 0 }
func (watched) memory() uint64 { return 0 }
func ownCPU() float64          { return 0 }
