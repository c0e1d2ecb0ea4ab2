package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/stentproxy/stent/config"
	"github.com/stentproxy/stent/proxy/plug"
)

// fault is one problem of a configuration that was not taken.
type fault struct {
	File       string `json:"file,omitempty"`
	Line       int    `json:"line,omitempty"`
	Column     int    `json:"column,omitempty"`
	Path       string `json:"path,omitempty"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

// reloadConfig reads the configuration again and puts it into force. A bad
// one leaves the running one alone, and every problem of it is answered.
func (a *api) reloadConfig(w http.ResponseWriter, r *http.Request) *plug.Problem {
	if a.reload == nil {
		return &plug.Problem{Status: http.StatusNotImplemented, Detail: "this process has no configuration to read again"}
	}
	if err := a.reload(r.Context()); err != nil {
		return a.answerFaults(w, r, faultsOf(err))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// faultsOf lists the problems that an error stands for.
func faultsOf(err error) []fault {
	var all config.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		one, ok := errors.AsType[*config.Error](err)
		if !ok {
			return []fault{{Message: err.Error()}}
		}
		all = config.Errors{one}
	}
	faults := make([]fault, len(all))
	for i, e := range all {
		faults[i] = fault{e.File, e.Line, e.Column, e.Path, e.Message, e.Suggestion}
	}
	return faults
}

// answerFaults answers a problem with the faults as an extension member (RFC
// 9457 section 3.2).
func (a *api) answerFaults(w http.ResponseWriter, r *http.Request, faults []fault) *plug.Problem {
	const status = http.StatusUnprocessableEntity
	body, err := json.Marshal(struct {
		Type      string  `json:"type"`
		Title     string  `json:"title"`
		Status    int     `json:"status"`
		Detail    string  `json:"detail"`
		RequestID string  `json:"request_id"`
		Errors    []fault `json:"errors"`
	}{
		"about:blank", http.StatusText(status), status, refusal(faults), plug.From(r).RequestID, faults,
	})
	if err != nil {
		return &plug.Problem{Status: status, Detail: refusal(faults)}
	}
	write(w, status, "application/problem+json", append(body, '\n'))
	return nil
}

// refusal is what is said to who reads no more than a problem's detail.
func refusal(faults []fault) string {
	first := faults[0]
	at := ""
	if first.File != "" {
		at = fmt.Sprintf("%s:%d:%d: ", first.File, first.Line, first.Column)
	}
	if first.Path != "" {
		at += first.Path + ": "
	}
	more := ""
	if n := len(faults) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return "the configuration stays as it was: " + at + first.Message + more
}
