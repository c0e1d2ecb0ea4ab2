package upstream

import (
	"context"
	"errors"
)

// result is how one dial ended: the label of stent_upstream_dials_total.
type result uint8

const (
	resultOK         result = iota // a 101, or a connection for plain requests
	resultRefused                  // a well-formed answer other than 101
	resultFailed                   // no connection
	resultTimeout                  // no answer within dial.timeout
	resultBadAnswer                // not a WebSocket server's
	resultUnsuitable               // Handshake.Check said no
	resultCanceled                 // the caller gave up
	resultCount
)

var resultNames = [resultCount]string{
	resultOK:         "ok",
	resultRefused:    "refused",
	resultFailed:     "failed",
	resultTimeout:    "timeout",
	resultBadAnswer:  "bad_answer",
	resultUnsuitable: "unsuitable",
	resultCanceled:   "canceled",
}

// classify names the result of a dial that ended with err; ctx is the
// caller's.
func classify(ctx context.Context, err error) result {
	if err == nil {
		return resultOK
	}
	if _, ok := errors.AsType[*Refused](err); ok {
		return resultRefused
	}
	if ctx.Err() != nil {
		return resultCanceled
	}
	if _, ok := errors.AsType[*BadAnswer](err); ok {
		return resultBadAnswer
	}
	switch {
	case errors.Is(err, ErrTimeout):
		return resultTimeout
	case errors.Is(err, ErrUnsuitable):
		return resultUnsuitable
	}
	return resultFailed
}
