package bench

import (
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"sync"
)

// maxKinds bounds the kinds of errors that are told apart.
const maxKinds = 32

// faults counts errors by what they say.
type faults struct {
	mu    sync.Mutex
	kinds map[string]int64
}

func (f *faults) add(err error, n int64) {
	kind := kindOf(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kinds == nil {
		f.kinds = make(map[string]int64)
	}
	if _, known := f.kinds[kind]; !known && len(f.kinds) >= maxKinds {
		kind = "others"
	}
	f.kinds[kind] += n
}

func (f *faults) all() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.kinds)
}

// kindOf leaves out what differs from one connection to the next.
func kindOf(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		cause := op.Err
		if call, ok := cause.(*os.SyscallError); ok {
			cause = call.Err // it names the call again
		}
		return op.Op + ": " + cause.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection ended"
	}
	return err.Error()
}
