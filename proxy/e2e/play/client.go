package play

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// quiet is how long any one step may take.
const quiet = 10 * time.Second

// Client is a client library.
type Client struct {
	Lacks []string
	Open  func(ctx context.Context, url string, c Case) (Session, error)
}

// Session is a client library's connection.
type Session interface {
	Subprotocol() string
	Header(name string) string
	Text(data string) error
	Binary(data []byte) error
	Fragments(parts [][]byte) error
	Ping(data string) error
	// Close closes with the code, or with none when it is 0.
	Close(code int, reason string) error
	Abort() error
	// Events is where the session's one reader puts what it sees; a close is
	// the last.
	Events() <-chan Event
}

// Refused is the error of an Open that got an answer other than 101.
type Refused struct {
	Status int
	Header http.Header
	Body   string
}

func (r *Refused) Error() string { return fmt.Sprintf("refused with %d", r.Status) }

// Play plays c against the server at base, as ws://host:port.
func (client Client) Play(ctx context.Context, base string, c Case) Result {
	var lacks []string
	for _, need := range c.Needs {
		if slices.Contains(client.Lacks, need) {
			lacks = append(lacks, need)
		}
	}
	if lacks != nil {
		return Result{Case: c.Name, NA: strings.Join(lacks, ", ")}
	}
	row, err := client.steps(ctx, base, c)
	if err != nil {
		row = append(row, "error "+err.Error())
	}
	return Result{Case: c.Name, Row: row}
}

func (client Client) steps(ctx context.Context, base string, c Case) (row []string, err error) {
	opening, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	s, err := client.Open(opening, base+c.Target, c)
	if refused, ok := errors.AsType[*Refused](err); ok {
		row = append(row, fmt.Sprintf("refused %d", refused.Status))
		for _, name := range c.Show {
			row = append(row, name+": "+refused.Header.Get(name))
		}
		if c.Body {
			row = append(row, "body "+refused.Body)
		}
		return row, nil
	}
	if err != nil {
		return row, err
	}
	row = append(row, strings.TrimSpace("open "+s.Subprotocol()))
	for _, name := range c.Show {
		row = append(row, name+": "+s.Header(name))
	}
	ended := false
	defer func() {
		if !ended {
			_ = s.Abort()
		}
	}()
	for _, step := range c.Steps {
		seen, err := do(s, step)
		if seen != nil {
			row = append(row, seen.String())
			ended = seen.Kind == "close"
		}
		if err != nil {
			return row, err
		}
	}
	return row, nil
}

func do(s Session, step Step) (*Event, error) {
	switch step.Op {
	case "text":
		return nil, s.Text(step.Text)
	case "binary":
		return nil, s.Binary(Pattern(step.Size))
	case "fragments":
		var parts [][]byte
		for _, part := range step.Parts {
			data, err := hex.DecodeString(part)
			if err != nil {
				return nil, err
			}
			parts = append(parts, data)
		}
		return nil, s.Fragments(parts)
	case "ping":
		return nil, s.Ping(step.Text)
	case "abort":
		return nil, s.Abort()
	case "close":
		if err := s.Close(step.Code, step.Reason); err != nil {
			return nil, err
		}
		return next(s)
	case "recv":
		return next(s)
	}
	return nil, fmt.Errorf("unknown step %s", step.Op)
}

func next(s Session) (*Event, error) {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	select {
	case e := <-s.Events():
		return &e, nil
	case <-timer.C:
		return nil, fmt.Errorf("nothing within %v", quiet)
	}
}
