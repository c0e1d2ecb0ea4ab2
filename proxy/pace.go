package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// bodyStall is how long a client may pause inside the body of a plain
// request.
const bodyStall = 60 * time.Second

// pacedBody is the body of a plain request on its way up: it gives up a
// client that pauses longer than stall, and carries the request's trailers
// over. Only declared trailers go up, and of those only what admit left.
type pacedBody struct {
	io.Reader
	request *http.Request
	client  *http.ResponseController
	stall   time.Duration
	// trailer has its values once the body has been read to its end.
	trailer http.Header
	// until is when the pause that the client makes will be too long, in Unix
	// nanoseconds; 0 while nothing is waited for.
	until atomic.Int64
	// broken says that what came is no body, and ended that it came whole.
	broken, ended atomic.Bool
}

func newPacedBody(w http.ResponseWriter, r *http.Request, stall time.Duration) *pacedBody {
	b := &pacedBody{request: r, client: http.NewResponseController(w), stall: stall}
	if len(r.Trailer) > 0 {
		b.trailer = make(http.Header, len(r.Trailer))
		for name := range r.Trailer {
			b.trailer[name] = nil
		}
	}
	return b
}

// stalled says whether the client has paused too long. net/http cancels the
// request's context with any failed read, before Read can return: asking the
// clock does not race with that.
func (b *pacedBody) stalled() bool {
	until := b.until.Load()
	return until != 0 && time.Now().UnixNano() >= until
}

// pending says whether there is more of the body to come.
func (b *pacedBody) pending() bool { return b.Reader != nil && !b.ended.Load() }

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	until := time.Now().Add(b.stall)
	b.until.Store(until.UnixNano())
	// A writer that has no deadlines is not a client that could stall.
	_ = b.client.SetReadDeadline(until)
	n, err := b.Reader.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		b.until.Store(0)
	}
	b.broken.Store(err != nil && !errors.Is(err, io.EOF))
	// After another error the deadline stays, or net/http would wait for the
	// rest of the body in vain.
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
		// It goes on reading, to learn when the client leaves.
		_ = b.client.SetReadDeadline(time.Time{})
		for name := range b.trailer {
			b.trailer[name] = b.request.Trailer[name]
		}
	}
	return n, err
}

// Close does nothing. A target that can't be connected to closes the body that
// the next one gets; net/http closes the client's.
func (b *pacedBody) Close() error { return nil }
