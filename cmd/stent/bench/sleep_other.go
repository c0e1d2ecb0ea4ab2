//go:build !linux

package bench

import "time"

func exactSleep() (end func()) { return func() {} }

func sleep(d time.Duration) { time.Sleep(d) }
